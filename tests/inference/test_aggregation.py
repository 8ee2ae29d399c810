"""One answer from several views: probabilities or logits, whole maps or windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nonlocal_video as nlv
from nonlocal_video.inference.aggregation import average_scores, window_logits
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import load_checkpoint


@pytest.fixture
def card(tiny_model: Path) -> ModelCard:
    return load_checkpoint(tiny_model)[1]


def test_probabilities_and_logits_are_averaged_as_the_card_says(card: ModelCard) -> None:
    logits = torch.tensor([[4.0, 0.0], [-1.0, 0.0]])
    exponentials = np.exp(logits.double().numpy())
    of_views = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(average_scores(card, logits), of_views.mean(0), rtol=1e-12)
    of_means = average_scores(replace(card, average="logits"), logits)
    np.testing.assert_allclose(of_means, np.exp([1.5, 0.0]) / np.exp([1.5, 0.0]).sum(), rtol=1e-12)
    assert abs(of_means[0] - of_views.mean(0)[0]) > 0.1


def test_windows_are_every_place_of_the_pooling_window(card: ModelCard) -> None:
    network = nn.Module()
    network.fc = nn.Linear(5, 3)
    features = torch.randn(2, 5, 2, 4, 3)
    logits = window_logits(replace(card, head_window=(2, 3, 3)), network, features)
    assert logits.shape == (2, 2, 3)
    for place in range(2):
        pooled = features[:, :, :, place : place + 3].mean((2, 3, 4))
        torch.testing.assert_close(logits[:, place], network.fc(pooled))


def test_features_smaller_than_the_window_are_an_error(card: ModelCard) -> None:
    network = nn.Module()
    network.fc = nn.Linear(5, 3)
    with pytest.raises(nlv.ModelError, match=r"pools \(2, 7, 7\) cells and got \(2, 4, 3\)"):
        window_logits(replace(card, head_window=(2, 7, 7)), network, torch.randn(1, 5, 2, 4, 3))


def test_the_recogniser_averages_the_probabilities_of_windows(tiny_model: Path, clip_folder: Path) -> None:
    """Against the network's own forward pass on the features, window by window."""
    network, card = load_checkpoint(tiny_model)
    windowed = replace(card, head_window=(1, 2, 2))
    with nlv.Recognizer(network, windowed, device="cpu") as recognizer, torch.inference_mode():
        explanation = recognizer.explain_all(clip_folder / "a.mp4")
        features = recognizer.network.extract_features(explanation.network_input, ["stage4"])["stage4"]
        (places_t, places_y, places_x) = (
            size - need + 1 for size, need in zip(features.shape[2:], (1, 2, 2), strict=True)
        )
        assert places_t * places_y * places_x > 1
        expected = torch.stack(
            [
                recognizer.network.fc(features[:, :, t : t + 1, y : y + 2, x : x + 2].mean((2, 3, 4))).softmax(1)[0]
                for t in range(places_t)
                for y in range(places_y)
                for x in range(places_x)
            ]
        ).mean(0)
        scores = recognizer.classify(clip_folder / "a.mp4").scores
        np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)
        np.testing.assert_allclose(explanation.prediction.scores, scores, atol=1e-6)
    with nlv.Recognizer(network, card, device="cpu") as whole:
        assert np.abs(whole.classify(clip_folder / "a.mp4").scores - scores).max() > 1e-4


@pytest.mark.parametrize("window", [(1, 2, 2), (1, 1, 1), (2, 1, 2), None])
def test_the_evidence_sums_to_the_logit_whatever_the_windows(tiny_model: Path, clip_folder: Path, window) -> None:
    """Compare with the mean of the windows' logits, from a loop; the summary says which of the two it is."""
    network, card = load_checkpoint(tiny_model)
    clip = clip_folder / "a.mp4"
    with nlv.Recognizer(network, replace(card, head_window=window), device="cpu") as recognizer:
        explanation = recognizer.explain_all(clip)
        maps = [explanation.class_evidence(label) for label in range(len(card.labels))]
        sums = np.array([float(of_class.cells.sum()) for of_class in maps])
    features, head = explanation.features, recognizer.network.fc
    assert features is not None
    size = tuple(features.shape[2:])
    assert size[1] > 1
    need = window or size
    places = [
        (t, y, x)
        for t in range(size[0] - need[0] + 1)
        for y in range(size[1] - need[1] + 1)
        for x in range(size[2] - need[2] + 1)
    ]
    with torch.inference_mode():
        logits = [
            head(features[0, :, t : t + need[0], y : y + need[1], x : x + need[2]].mean((1, 2, 3)))
            for t, y, x in places
        ]
        expected = torch.stack(logits).mean(0) - head.bias
    np.testing.assert_allclose(sums, expected.numpy(), rtol=1e-4, atol=1e-5)
    of = "logit" if window is None else f"mean of the logits of {len(places)} windows"
    assert {of_class.quantity for of_class in maps} == {f"share of the {of}, exact"}
