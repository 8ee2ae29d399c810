"""Parts of a network that learn in each stage, what recomputed activations leave as it is, and the gates' schedule."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from engine_parts import tiny_card, tiny_network, wake_blocks
from torch import Tensor, nn

from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.blocks.schedule import ProgressiveSchedule
from nonlocal_video.errors import UsageError
from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint
from nonlocal_video.models.folding import fold_batch_norms
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.training.config import Stage
from nonlocal_video.training.freezing import (
    Gates,
    checkpoint_activations,
    freeze,
    last_frozen_layer,
    set_training,
    share_statistics,
    with_absorbed_gates,
)

LEARNING: dict[Stage, tuple[str, ...]] = {"head": ("fc",), "top": ("layer4", "fc"), "all": ("stem", "layer", "fc")}


def one_step(network: Video3DResNet, x: Tensor) -> None:
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(x).square().sum().backward()
    optimizer.step()


def changed_by(network: Video3DResNet, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("batch_norm", ["frozen", "batch"])
@pytest.mark.parametrize("stage", ["head", "top", "all"])
def test_a_step_changes_what_learns_and_nothing_else(stage: Stage, batch_norm: Literal["frozen", "batch"]) -> None:
    network = wake_blocks(tiny_network(tiny_card(blocks=True)))
    frozen = last_frozen_layer(network, stage)
    freeze(network, frozen)
    set_training(network, frozen, batch_norm)
    before = copy.deepcopy(network.state_dict())
    one_step(network, torch.randn(2, 3, 8, 64, 64))  # 2 x 2 x 2 cells at the last block

    learning = {name for name in before if name.startswith(LEARNING[stage])}
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    expected = learning - statistics if batch_norm == "frozen" else learning
    changed = changed_by(network, before)
    assert changed <= expected
    # A bias before a batch norm that subtracts the batch's mean has no gradient, but for rounding.
    assert expected - changed <= {name for name in expected if name.endswith("W.bias")}
    assert network.fc.training


def test_dropout_is_on_in_every_stage() -> None:
    network = tiny_network(tiny_card(dropout=0.5))
    for stage in LEARNING:
        network.eval()
        set_training(network, last_frozen_layer(network, stage), "frozen")
        assert network.dropout.training


def test_inceptions_last_stage_is_mixed_5() -> None:
    network = InceptionI3D(InceptionI3DConfig(3, {"MaxPool3d_5a_2x2": NonLocalConfig(inter_channels=4)}))
    freeze(network, last_frozen_layer(network, "top"))
    learning = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning == {"nonlocal_MaxPool3d_5a_2x2", "Mixed_5b", "Mixed_5c", "logits"}
    set_training(network, last_frozen_layer(network, "top"), "batch")
    modes = {name for name, child in network.named_children() if child.training}
    assert modes == {*learning, "dropout"}
    freeze(network, last_frozen_layer(network, "head"))
    assert {name for name, one in network.named_parameters() if one.requires_grad} == {"logits.weight", "logits.bias"}
    freeze(network, last_frozen_layer(network, "all"))
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("batch_norm", ["frozen", "batch"])
def test_recomputed_activations_give_the_same_numbers(batch_norm: Literal["frozen", "batch"]) -> None:
    plain = wake_blocks(tiny_network(tiny_card(blocks=True, dropout=0.3)))
    recomputing = copy.deepcopy(plain)
    checkpoint_activations(recomputing)
    recomputing = copy.deepcopy(recomputing)  # as averaged weights are made
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    recomputing.layer4[0].conv1.conv.register_forward_hook(count)
    x = torch.randn(3, 3, 4, 32, 32)
    found = []
    for network in (plain, recomputing):
        set_training(network, None, batch_norm)
        torch.manual_seed(4)
        logits = network(x)
        logits.square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        found.append((logits, gradients, network.state_dict()))
    assert calls == 2
    (logits, gradients, state), (same_logits, same_gradients, same_state) = found
    assert torch.equal(logits, same_logits)
    for name, gradient in gradients.items():
        assert gradient is not None
        torch.testing.assert_close(same_gradients[name], gradient, rtol=1e-6, atol=1e-7)
    for name, tensor in state.items():  # running statistics moved once
        assert torch.equal(same_state[name], tensor), name


def test_a_recomputing_network_folds_and_its_copies_are_their_own() -> None:
    network = tiny_network(tiny_card())
    checkpoint_activations(network)
    twin = copy.deepcopy(network).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    x = torch.randn(1, 3, 4, 32, 32)
    assert twin(x).abs().max() > 0
    torch.testing.assert_close(fold_batch_norms(twin)(x), twin(x))


class TestGates:
    SCHEDULE = ProgressiveSchedule(warmup_epochs=1, ramp_epochs=2, stages=(4, 3))

    def test_they_follow_the_schedule_and_change_the_output(self) -> None:
        network = wake_blocks(tiny_network(tiny_card(blocks=True))).eval()
        x = torch.randn(2, 3, 4, 32, 32)
        gates = Gates(network, self.SCHEDULE)
        outputs = []
        for epoch, expected in ((0.5, (0, 0)), (2.0, (0, 0.5)), (3.0, (0, 1)), (4.5, (0.75, 1)), (5.0, (1, 1))):
            gates.set_epoch(epoch)
            assert gates.values() == dict(zip(("layer3.nonlocal0", "layer4.nonlocal0"), expected, strict=True))
            outputs.append(network(x))
            torch.testing.assert_close(with_absorbed_gates(network)(x), outputs[-1])
        for earlier, later in itertools.pairwise(outputs):
            assert not torch.allclose(earlier, later)
        assert gates.values()["layer3.nonlocal0"] == 1

    def test_without_a_schedule_they_stay_open(self) -> None:
        gates = Gates(tiny_network(tiny_card(blocks=True)), None)
        gates.set_epoch(0)
        assert set(gates.values().values()) == {1.0}
        assert gates.fully_open_epoch() == 0

    @pytest.mark.parametrize("stages", [(4, 3), (3, 2, 4, 1), (4, 3, 2, 1)])
    def test_when_the_last_one_is_open(self, stages: tuple[int, ...]) -> None:
        gates = Gates(tiny_network(tiny_card(blocks=True)), replace(self.SCHEDULE, stages=stages))
        epoch = gates.fully_open_epoch()
        gates.set_epoch(epoch)
        assert set(gates.values().values()) == {1.0}
        gates.set_epoch(epoch - 0.1)
        assert min(gates.values().values()) < 1

    def test_absorbing_leaves_the_network_in_training_as_it_is(self) -> None:
        network = wake_blocks(tiny_network(tiny_card(blocks=True)))
        Gates(network, self.SCHEDULE).set_epoch(2.0)
        before = copy.deepcopy(network.state_dict())
        saved = with_absorbed_gates(network)
        assert changed_by(network, before) == set()
        assert [block.gate for block in network.nonlocal_layers().values()] == [0.0, 0.5]
        assert [block.gate for block in saved.nonlocal_layers().values()] == [1.0, 1.0]

    def test_inceptions_places_belong_to_stages(self) -> None:
        blocks = dict.fromkeys(("Mixed_3c", "Mixed_4f", "Mixed_5b"), NonLocalConfig(inter_channels=4))
        gates = Gates(InceptionI3D(InceptionI3DConfig(3, blocks)), ProgressiveSchedule(0, 1, (4, 3, 2)))
        gates.set_epoch(1.5)
        assert gates.values() == {"nonlocal_Mixed_3c": 0.0, "nonlocal_Mixed_4f": 0.5, "nonlocal_Mixed_5b": 1.0}

    def test_a_schedule_that_does_not_fit_is_refused(self) -> None:
        with pytest.raises(UsageError, match="the network has none"):
            Gates(tiny_network(tiny_card()), self.SCHEDULE)
        with pytest.raises(UsageError, match=r"stages \(4,\) and omits \[3\]"):
            Gates(tiny_network(tiny_card(blocks=True)), replace(self.SCHEDULE, stages=(4,)))


class TestSharedStatistics:
    """Their forward pass in training mode is for GPUs; in eval mode it is that of any batch norm."""

    CUDA = torch.device("cuda")

    @pytest.mark.parametrize(("processes", "device"), [(1, "cuda"), (2, "cpu")])
    def test_not_without_several_processes_on_gpus(self, processes: int, device: str) -> None:
        network = tiny_network(tiny_card(blocks=True))
        share_statistics(network, processes=processes, device=torch.device(device))
        assert not any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())

    def test_names_and_answers_stay(self, tmp_path: Path) -> None:
        card = tiny_card(blocks=True)
        network = wake_blocks(tiny_network(card)).eval()
        freeze(network, last_frozen_layer(network, "top"))
        learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        clips = torch.randn(2, 3, 4, 32, 32)
        norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm3d)]
        with torch.no_grad():
            expected = network(clips)

        share_statistics(network, processes=2, device=self.CUDA)
        assert norms == [name for name, module in network.named_modules() if isinstance(module, nn.SyncBatchNorm)]
        assert "layer3.nonlocal0.bn" in norms
        assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == learning
        set_training(network, None, "frozen")
        assert not any(network.get_submodule(name).training for name in norms)
        save_checkpoint(tmp_path / "shared.safetensors", with_absorbed_gates(network), card, dtype=torch.float32)
        plain, _ = load_checkpoint(tmp_path / "shared.safetensors")
        assert norms == [name for name, module in plain.named_modules() if type(module) is nn.BatchNorm3d]
        with torch.no_grad():
            torch.testing.assert_close(plain.eval()(clips), expected, rtol=0, atol=0)
            torch.testing.assert_close(network.eval()(clips), expected, rtol=0, atol=0)
