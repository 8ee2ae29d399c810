"""The default's features: its logits follow from them, whatever runs the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import inception_card, needs_openvino, random_network

import nonlocal_video as nlv
from nonlocal_video.inference.recognizer import Recognizer


def logits_from(recognizer: Recognizer, features: np.ndarray) -> np.ndarray:
    classifier = recognizer.network.logits
    with torch.inference_mode():
        weight, bias = classifier.weight.flatten(1).numpy(), classifier.bias.numpy()
    return features @ weight.T + bias


@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=[needs_openvino, pytest.mark.slow])])
@pytest.mark.slow
def test_logits_follow_from_the_features(clip_folder: Path, runtime: str) -> None:
    """Random weights for a network like the default, whose head does not average its frames of features equally."""
    card = inception_card()
    network = random_network(card)
    with Recognizer(network, card, device="cpu") as by_torch:
        expected = by_torch.features(clip_folder / "a.mp4")
    with Recognizer(network, card, device="cpu", runtime=runtime) as recognizer:
        found = recognizer.features(clip_folder / "a.mp4")
    largest = np.abs(found.logits).max()
    np.testing.assert_allclose(logits_from(recognizer, found.features), found.logits, atol=1e-4 * largest)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-4 * np.abs(expected.features).max())


@pytest.mark.slow
def test_those_of_the_default(data_folder: Path) -> None:
    (clip,) = (data_folder / "clips" / "playing_basketball").glob("*")
    with nlv.load("default", device="cpu") as recognizer:
        found = recognizer.features(clip, fast=True, end_seconds=1.28)
        alone = recognizer.classify(clip, fast=True, end_seconds=1.28)
    assert found.features.shape == (1, 1024)
    assert found.logits[0].tobytes() == alone.logits.tobytes()
    largest = np.abs(found.logits).max()
    np.testing.assert_allclose(logits_from(recognizer, found.features), found.logits, atol=1e-5 * largest)
