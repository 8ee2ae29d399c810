"""The learning rate and the optimisers' groups, against formulas written down anew."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from engine_parts import tiny_card, tiny_network
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode

from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.freezing import freeze
from nonlocal_video.training.optim import (
    AveragedWeights,
    learning_rate,
    make_optimizer,
    set_learning_rate,
    state_bytes,
)


def test_linear_warm_up_then_half_a_cosine() -> None:
    config = TrainConfig(epochs=5, warmup_epochs=2, learning_rate=0.4)
    found = [learning_rate(config, step, 10) for step in range(50)]
    warm_up = [0.4 * (step + 1) / 21 for step in range(20)]
    cosine = [0.2 * (1 + math.cos(math.pi * step / 30)) for step in range(30)]
    assert found == pytest.approx(warm_up + cosine)
    assert max(found) == found[20] == 0.4
    assert 0 < found[-1] < 0.01


def test_without_warm_up_it_is_torchs_cosine() -> None:
    config = TrainConfig(epochs=2, warmup_epochs=0, learning_rate=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = CosineAnnealingLR(optimizer, T_max=12)
    for step in range(12):
        assert learning_rate(config, step, 6) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_a_warm_up_longer_than_the_run_still_ends() -> None:
    config = TrainConfig(epochs=1, warmup_epochs=5, learning_rate=1.0)
    assert [learning_rate(config, step, 4) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert learning_rate(config, 0, 1) == 1.0


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weights_decay_and_biases_and_norms_do_not(name: str) -> None:
    network = tiny_network(tiny_card())
    freeze(network, "layer3")
    optimizer = make_optimizer(network, TrainConfig(optimizer=name, weight_decay=0.3, momentum=0.8))
    decays = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    names = {id(parameter): one for one, parameter in network.named_parameters()}
    found = {names[number]: decay for number, decay in decays.items()}
    assert set(found) == {one for one, _ in network.named_parameters() if one.startswith(("layer4", "fc"))}
    for one, decay in found.items():
        assert decay == (0.3 if one.endswith(("conv.weight", "fc.weight")) else 0.0), one
    set_learning_rate(optimizer, 0.07)
    assert {group["lr"] for group in optimizer.param_groups} == {0.07}
    if name == "sgd":
        assert all(group["momentum"] == 0.8 and group["nesterov"] for group in optimizer.param_groups)


def test_sgd_without_momentum_is_plain() -> None:
    optimizer = make_optimizer(torch.nn.Linear(2, 2), TrainConfig(optimizer="sgd", momentum=0.0))
    assert not any(group["nesterov"] for group in optimizer.param_groups)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_training_takes_besides_gradients(optimizer: Literal["adamw", "sgd"]) -> None:
    network = tiny_network(tiny_card())
    freeze(network, "layer3")
    config = TrainConfig(optimizer=optimizer)
    made = make_optimizer(network, config)
    network(torch.randn(2, 3, 4, 32, 32)).sum().backward()
    made.step()
    kept = [tensor for of_one in made.state.values() for tensor in of_one.values() if torch.is_tensor(tensor)]
    expected = sum(tensor.nbytes for tensor in kept if tensor.ndim)  # AdamW counts its steps, too
    assert state_bytes(network, config) == expected > 0
    averaged = state_bytes(network, replace(config, ema_decay=0.9)) - expected
    assert averaged == sum(parameter.nbytes for parameter in network.parameters())


@torch.no_grad()
def test_averages_have_the_bits_of_pytorchs_model_and_go_on_from_its_state(all_devices: str) -> None:
    def one_by_one(averages: list[Tensor], parameters: list[Tensor], steps: Tensor) -> None:
        for average, parameter in zip(averages, parameters, strict=True):
            average.lerp_(parameter, 1 - min(0.5, (1 + int(steps)) / (10 + int(steps))))

    network = tiny_network(tiny_card()).to(all_devices)
    theirs = AveragedModel(network, multi_avg_fn=one_by_one)
    ours = AveragedWeights(network, 0.5)

    def step() -> None:
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.add_(torch.randn_like(tensor) if tensor.is_floating_point() else 1)

    def agree(averages: AveragedWeights) -> bool:
        state, expected = averages.state_dict(), theirs.state_dict()
        return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)

    for _ in range(10):  # from the eighth on the weight is the same
        step()
        theirs.update_parameters(network)
        ours.update(network)
        assert agree(ours)
    resumed = AveragedWeights(tiny_network(tiny_card()).to(all_devices), 0.5)
    resumed.load_state_dict(theirs.state_dict())
    step()
    theirs.update_parameters(network)
    resumed.update(network)
    assert agree(resumed)


def test_averages_take_one_operation_for_all_tensors_of_a_type() -> None:
    """An operation a tensor would be hundreds of launches a step on a GPU."""
    network = tiny_network(tiny_card())
    averages, names = AveragedWeights(network, 0.5), []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(func.name().partition(".")[0])
            return func(*args, **(kwargs or {}))

    averages.update(network)
    with Record():
        averages.update(network)
    assert names == ["aten::_foreach_lerp_", "aten::_foreach_copy_", "aten::_foreach_copy_"]  # buffers of two types
