"""Logits and pooled features of a prediction are the network's, from one pass, whatever runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import SPEC, needs_openvino, random_network, resnet_card
from torch import nn

import nonlocal_video as nlv
from nonlocal_video.inference.preprocessing import ClipLoader, LoadedClip
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.video.decode import VideoReader


def loaded(recognizer: Recognizer, path: Path, views: str) -> LoadedClip:
    with VideoReader() as reader:
        return ClipLoader(reader).load(path, recognizer.card.input, ClipRequest(ViewCount.parse(views)), originals=None)


@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=needs_openvino)])
@pytest.mark.parametrize("views", ["1x1", "2x3"])
@pytest.mark.slow
def test_they_are_the_means_of_the_layer_before_the_classifier(
    unsure_model: Path, clip_folder: Path, runtime: str, views: str
) -> None:
    with nlv.load(unsure_model, device="cpu", runtime=runtime) as recognizer:
        clip = loaded(recognizer, clip_folder / "a.mp4", views)
        (found,) = recognizer.predict([clip])
        network = recognizer.network
        inputs = [clip.network_input(v, c) for v in range(len(clip.views)) for c in range(len(clip.crops))]
        with torch.inference_mode():
            expected = torch.cat([network.forward_to("layer4", view).mean(dim=(2, 3, 4)) for view in inputs])
            logits = torch.cat([network(view) for view in inputs])
    assert found.features is not None
    assert found.logits is not None
    np.testing.assert_allclose(found.features, expected.mean(dim=0), atol=1e-5 * float(expected.max()))
    if views == "1x1":
        np.testing.assert_allclose(found.logits, logits[0], atol=1e-5 * float(logits.abs().max()))
    # With several views, the logits are those whose softmax gives the averaged scores.
    np.testing.assert_allclose(torch.from_numpy(found.logits).softmax(0), found.scores, atol=1e-6)


def test_another_layer(recognizer: Recognizer, clip_folder: Path) -> None:
    clip = loaded(recognizer, clip_folder / "a.mp4", "1x1")
    (found,) = recognizer.predict([clip], layer="layer3")
    with torch.inference_mode():
        expected = recognizer.network.forward_to("layer3", clip.network_input(0, 0)).mean(dim=(2, 3, 4))
    assert found.features is not None
    np.testing.assert_allclose(found.features, expected[0], atol=1e-5 * float(expected.max()))
    assert found.scores.tobytes() == recognizer.predict([clip])[0].scores.tobytes()


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_places_of_a_window(average: str, clip_folder: Path) -> None:
    """Scores are averaged over the places as the card says, and the softmax of the logits stays the scores."""
    card = replace(resnet_card({}), head_window=(1, 1, 1), average=average, input=replace(SPEC, short_side=64, crop=64))
    network = random_network(card)
    with Recognizer(network, card, device="cpu") as recognizer:
        (found,) = recognizer.predict([loaded(recognizer, clip_folder / "a.mp4", "1x1")])
    assert found.features is not None
    assert found.logits is not None
    assert found.features.shape == (network.fc.in_features,)
    np.testing.assert_allclose(torch.from_numpy(found.logits).double().softmax(0), found.scores, atol=1e-6)


def test_a_network_that_names_no_layer_has_none_and_no_context(clip_folder: Path) -> None:
    class Mean(nn.Module):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return clips.mean(dim=(2, 3, 4))

    card = replace(resnet_card({}), labels=("red", "green", "blue"))
    with Recognizer(Mean(), card, device="cpu") as recognizer:
        assert recognizer.classify(clip_folder / "a.mp4").features is None
        assert recognizer.timeline(clip_folder / "a.mp4", context="none").features is None
        with pytest.raises(nlv.UsageError, match=r"no `feature_layer` that names them\. Use --context none"):
            recognizer.timeline(clip_folder / "a.mp4")
        with pytest.raises(nlv.UsageError, match=r"no `feature_layer`"):
            recognizer.classify_folder(clip_folder, context="folder")
