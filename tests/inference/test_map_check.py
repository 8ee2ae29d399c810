"""A map's check on a network whose score rests on one planted cell, and on networks as they are loaded."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import nonlocal_video as nlv
from nonlocal_video.attention.maps import AttentionMaps
from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.map_check import QuickCheck, check_faithfulness, class_of, class_score, quick_check
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet

INPUT = InputSpec(8, 10.0, short_side=48, crop=48, mean=(0.5,) * 3, std=(0.5,) * 3)
CELL = (2, 1, 4)  # of (4, 6, 6)
FRACTIONS = (0.0, 1 / 144, 0.02, 0.05, 0.1, 0.5, 0.9, 0.95, 1.0)


class OneCell(nn.Module):
    """Logits 8 x light - 4 and 0, light being the mean of one cell: the score is 0.98 if it is white, else about 0."""

    feature_layer = "pool"

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool3d((2, 8, 8))
        self.weights = torch.zeros(4, 6, 6)
        self.weights[CELL] = 1

    def forward(self, clips: Tensor) -> Tensor:
        light = (self.pool(clips).mean(1) * self.weights.to(clips.device)).sum((1, 2, 3))
        return torch.stack([8 * light - 4, torch.zeros_like(light)], dim=1)

    def class_activation_map(self, features: Tensor, class_indices: Tensor) -> Tensor:
        shares = 8 * features.mean(1, keepdim=True) * self.weights
        return torch.cat([shares * (1 if index == 0 else 0) for index in class_indices.tolist()], dim=1)


def clip_with_a_white_cell() -> NDArray[np.uint8]:
    frames = np.zeros((8, 48, 48, 3), np.uint8)
    time, row, column = CELL
    frames[2 * time : 2 * time + 2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
    return frames


@pytest.fixture(scope="module")
def one_cell() -> tuple[nlv.Recognizer, Explanation, AttentionMaps]:
    card = ModelCard(name="one-cell", architecture="none", config={}, input=INPUT, labels=("white", "other"))
    recognizer = nlv.Recognizer(OneCell(), card, device="cpu")
    explanation = recognizer.explain_all(clip_with_a_white_cell(), frames_per_second=10.0)
    return recognizer, explanation, explanation.class_evidence()


@pytest.mark.parametrize("baseline", ["blur", "mean_colour"])
def test_the_exact_map_beats_every_control_on_either_baseline(baseline, one_cell) -> None:
    recognizer, explanation, maps = one_cell
    assert np.unravel_index(maps.cells.argmax(), maps.cells.shape) == CELL
    found = check_faithfulness(
        recognizer, explanation, maps, baseline=baseline, fractions=FRACTIONS, draws=3, batch_size=4
    )
    assert (found.label, found.class_index, found.baseline) == ("white", 0, baseline)
    score = float(explanation.prediction.scores[0])
    for curves in (found.map, *found.displaced, found.over_time, found.centre):
        assert curves.deletion.scores[0] == curves.insertion.scores[-1] == pytest.approx(score)
        assert curves.deletion.scores[-1] == curves.insertion.scores[0] < 0.05
    for control in found.displaced:  # some lie next to the true place, and are nearly as good
        assert found.map.deletion.area <= control.deletion.area
        assert found.map.insertion.area >= control.insertion.area
    assert found.map.deletion.area < found.centre.deletion.area - 0.03
    assert found.map.insertion.area > found.centre.insertion.area + 0.03
    # The light is in two frames of eight, so a map that has lost its time takes four times as much to hide it.
    assert found.map.deletion.scores[1] < 0.1 < 0.5 < found.over_time.deletion.scores[1]
    assert found.map.insertion.scores[1] > 0.5 > 0.1 > found.over_time.insertion.scores[1]
    # Interpolated, one cell reaches over 8 cells of 144: 5.6%. Without a tenth of the places nothing of it is left.
    assert found.map.deletion.area < 0.1
    assert found.map.insertion.area > 0.9
    inverse = replace(maps, cells=-maps.cells)
    worst = check_faithfulness(recognizer, explanation, inverse, baseline=baseline, fractions=FRACTIONS, draws=1).map
    assert worst.deletion.area > 0.9
    assert worst.insertion.area < 0.1


def test_the_quick_check_says_what_it_measured(one_cell) -> None:
    recognizer, explanation, maps = one_cell
    passes: list[int] = []
    found = quick_check(recognizer, explanation, maps, fraction=0.1, on_pass=passes.append)
    assert passes == [1] * 6
    assert found.score == pytest.approx(float(explanation.prediction.scores[0]))
    assert found.without_strongest < 0.05
    assert min(found.without_displaced) > 0.9
    assert found.in_words == (
        'with the strongest 10% of the cells blurred, "white" falls from 0.98 to '
        f"{found.without_strongest:.2f}; with the same shape elsewhere (4 draws) it stays at 0.98 on average. "
        "No displaced shape brought it as low."
    )
    whole = check_faithfulness(recognizer, explanation, maps, fractions=(0, 0.1, 1))
    assert whole.map.deletion.scores[1] == found.without_strongest
    assert tuple(curves.deletion.scores[1] for curves in whole.displaced) == found.without_displaced


def test_a_map_that_points_elsewhere_is_told_so(one_cell) -> None:
    recognizer, explanation, maps = one_cell
    wrong = replace(maps, cells=np.roll(maps.cells, (2, 3, 2), axis=(0, 1, 2)))
    assert quick_check(recognizer, explanation, wrong, fraction=0.02).in_words.endswith(
        "Too little was removed to tell them apart."
    )
    worst = quick_check(recognizer, explanation, replace(maps, cells=-maps.cells), fraction=0.2)
    assert worst.without_strongest > 0.9


def test_a_map_that_is_the_same_everywhere_is_refused_in_words(one_cell) -> None:
    recognizer, explanation, maps = one_cell
    with pytest.raises(UsageError, match="The map has the same value everywhere: it ranks nothing"):
        quick_check(recognizer, explanation, replace(maps, cells=np.ones_like(maps.cells)))


@pytest.mark.parametrize(
    ("score", "strongest", "elsewhere", "words"),
    [
        (
            0.86,
            0.12,
            (0.8, 0.78),
            "falls from 0.86 to 0.12; .* it falls from 0.86 to 0.79 on average. No displaced shape brought it as low",
        ),
        (0.86, 0.12, (0.1, 0.5), "1 of the 2 brought it as low as the strongest cells did"),
        (0.86, 0.5, (0.5, 0.4), "the strongest cells matter no more than the same shape elsewhere"),
        (0.86, 0.9, (0.8, 0.8), "rises from 0.86 to 0.90; .* matter no more than the same shape elsewhere"),
        # Differences that are not shown are not spoken of.
        (0.99991, 0.99990, (0.99992, 0.99993), "stays at 1.00; .* it stays at 1.00 on average. Too little was removed"),
        (0.5, 0.3001, (0.3002, 0.3003), "matter no more than"),
    ],
)
def test_words_claim_no_more_than_the_digits_they_show(score, strongest, elsewhere, words) -> None:
    check = QuickCheck("dancing", 3, "blur", 0.2, score, strongest, elsewhere)
    assert re.search(words, check.in_words), check.in_words


@pytest.mark.parametrize("window", [None, (1, 1, 1)])
def test_scores_are_those_of_classify_with_a_head_window_too(window) -> None:
    block = NonLocalConfig(inter_channels=4, sub_sample=False)
    network = Video3DResNet.from_config(
        ResNet3DConfig(num_classes=2, width=4, blocks_per_stage=(1, 1, 1, 1), nonlocal_blocks={"layer3.0": block})
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    card = ModelCard("random", "none", {}, INPUT, labels=("a", "b"), head_window=window)
    frames = np.random.default_rng(0).integers(0, 256, (8, 72, 96, 3), dtype=np.uint8)
    with nlv.Recognizer(network, card, device="cpu") as recognizer:
        explanation = recognizer.explain_all(frames, frames_per_second=10.0)
        inputs = explanation.clip.network_input(0, 0)
        assert explanation.features is not None
        assert recognizer.forward(inputs).shape[1] == (explanation.features[0, 0].numel() if window else 1) != 0
        for index in range(2):
            score = class_score(recognizer, index)(torch.cat([inputs, inputs]))
            assert score == pytest.approx([explanation.prediction.scores[index]] * 2, abs=1e-6)
        for maps in (explanation.class_evidence(), explanation.attention_received()):
            found = check_faithfulness(
                recognizer, explanation.lightened(32), maps, label=1, fractions=(0, 0.5, 1), draws=1
            )
            assert found.map.deletion.scores[0] == pytest.approx(explanation.prediction.scores[1], abs=1e-6)


def test_classes_by_name_and_index(one_cell) -> None:
    _, explanation, _ = one_cell
    assert [class_of(explanation, label) for label in (None, "other", 1, "white")] == [0, 1, 1, 0]
    for label in ("grey", 2, -1):
        with pytest.raises(UsageError, match="is not a class of model 'one-cell'"):
            class_of(explanation, label)
