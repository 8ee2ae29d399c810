"""No feature map has more elements than 32 bits can index, whatever batch was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_networks import KERNELS, MODES, inception_card, random_network, resnet_card, size_of
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import nonlocal_video as nlv
from nonlocal_video.inference import batch_limit
from nonlocal_video.inference.batch_limit import MAX_ELEMENTS, largest_tensor, views_at_once
from nonlocal_video.inference.preprocessing import ClipLoader
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.runtimes.answer import NetworkAnswer
from nonlocal_video.inference.runtimes.runner import NetworkRunner
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.models.folding import fold_batch_norms

VIEW = (3, 64, 224, 224)


def largest_feature_map(network: nn.Module, clips: Tensor) -> int:
    """The largest input or output of any module: by hooks."""
    seen: list[int] = []

    def watch(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.extend(tensor.numel() for tensor in (*inputs, output))

    handles = [module.register_forward_hook(watch) for module in network.modules()]
    try:
        with torch.no_grad():
            network(clips)
    finally:
        for handle in handles:
            handle.remove()
    return max(seen)


def without_data(network: nn.Module, batch: int) -> int:
    """The same for so many views, on tensors that only pretend to hold data."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        return largest_feature_map(network, torch.empty(batch, *VIEW))


def test_84_views_of_the_default_would_be_too_many_and_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    with nlv.load("default", device="cpu") as recognizer:
        network = recognizer.inference_network
        assert without_data(network, 84) > MAX_ELEMENTS
        most = views_at_once(network, VIEW)
        assert most < 84
        assert without_data(network, most) <= MAX_ELEMENTS
        assert without_data(network, most + 2) > MAX_ELEMENTS  # padding counts, which hooks do not see
        sizes: list[int] = []

        def answered(_self: NetworkRunner, inputs: Tensor, *_: Any, **__: Any) -> tuple[NetworkAnswer, str]:
            sizes.append(len(inputs))
            return NetworkAnswer(torch.zeros(len(inputs), 1, 400), None), "torch"

        monkeypatch.setattr(NetworkRunner, "__call__", answered)
        recognizer.forward(torch.empty(1).expand(200, *VIEW))
    assert sum(sizes) == 200
    assert max(sizes) == most


@pytest.mark.parametrize("card", [resnet_card(KERNELS), resnet_card(MODES), inception_card()])
def test_nothing_larger_than_what_is_counted_is_made(card: Any) -> None:
    network = fold_batch_norms(random_network(card))
    view = (3, *size_of(card))
    counted = largest_tensor(network, view)
    seen = largest_feature_map(network, torch.zeros(3, *view))
    assert seen <= 3 * counted
    assert counted <= 1.2 * seen / 3  # more than padding is not added


def test_a_network_that_needs_data_is_taken_for_a_wide_one() -> None:
    class Asks(nn.Module):
        def forward(self, clips: Tensor) -> Tensor:
            return clips if clips.sum() > 0 else -clips

    assert largest_tensor(Asks(), (3, 4, 10, 10)) == 64 * 4 * 10 * 10


@pytest.fixture
def narrow(unsure_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A recogniser for which two views are the most, and the batches that its network was given."""
    with nlv.load(unsure_model, device="cpu") as recognizer:
        spec = recognizer.card.input
        one = largest_tensor(recognizer.inference_network, (3, spec.num_frames, spec.crop, spec.crop))
        monkeypatch.setattr(batch_limit, "MAX_ELEMENTS", 2 * one + 1)
        sizes: list[int] = []

        def note(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            if not inputs[0].is_meta:  # the copy that is only measured has the hook, too
                sizes.append(len(inputs[0]))

        recognizer.inference_network.register_forward_hook(note)
        yield recognizer, sizes


def test_a_batch_that_was_set_by_hand_is_split(narrow: tuple[Recognizer, list[int]], recognizer: Recognizer) -> None:
    limited, sizes = narrow
    frames = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    with recognizer.new_reader() as reader:
        request = ClipRequest(ViewCount.parse("3x3"), frames_per_second=10.0)
        clip = ClipLoader(reader).load(frames, recognizer.card.input, request, originals=None)
    (found,) = limited.predict([clip], batch_size=9)
    assert sizes == [2, 2, 2, 2, 1]
    (wanted,) = recognizer.predict([clip], batch_size=1)
    assert np.abs(found.scores - wanted.scores).max() < 1e-6


def test_views_that_are_handed_over_are_split(narrow: tuple[Recognizer, list[int]], recognizer: Recognizer) -> None:
    limited, sizes = narrow
    clips = torch.randn(5, 3, 8, 48, 48)
    found = limited.forward(clips)
    assert sizes == [2, 2, 1]
    assert (found - recognizer.forward(clips)).abs().max() < 1e-5 * found.abs().max()
