"""Windows refined by the windows like them: the formula restated in NumPy, while it grows and in the files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.sliding import slide
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.inference.timeline_files import to_csv, to_json, write_timeline


@pytest.fixture(scope="module")
def grown(recognizer: Recognizer, colour_clip: Callable[[int], Path]) -> list[Timeline]:
    """A timeline of nine windows as it grows, two at a time."""
    return list(slide(recognizer, colour_clip(40), batch_size=2))


def weights_of(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """(W, W), restated."""
    rows = features.astype(float)
    z = rows - len(rows) / (len(rows) + 8) * rows.mean(axis=0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    powers = np.exp(max(5.0, np.log(len(rows))) * z @ z.T)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def refined(logits: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float64]:
    halved = np.exp(logits.astype(float) / 2)
    squares = (weights_of(features) @ (halved / halved.sum(axis=1, keepdims=True))) ** 2
    return np.asarray(squares / squares.sum(axis=1, keepdims=True))


def test_the_last_timeline_draws_on_all_windows_and_those_before_on_what_was_there(grown: list[Timeline]) -> None:
    whole = grown[-1]
    assert whole.logits is not None
    assert whole.features is not None
    assert (len(whole), whole.context, whole.features.shape) == (9, "nonlocal", (9, 32))
    np.testing.assert_allclose(whole.scores, refined(whole.logits, whole.features), atol=1e-5)
    for step in grown[:-1]:
        assert step.logits is not None
        assert step.features is not None
        for window in range(len(step)):
            so_far = refined(step.logits[: window + 1], step.features[: window + 1])
            np.testing.assert_allclose(step.scores[window], so_far[-1], atol=1e-5)
    assert np.abs(whole.scores - whole.raw_scores).max() > 1e-3  # so the comparison means something


def test_what_a_window_drew_on(grown: list[Timeline]) -> None:
    whole = grown[-1]
    assert whole.features is not None
    weights = weights_of(whole.features)
    found = list(whole.drawn_on(k=3))
    for window, drawn in enumerate(found):
        assert drawn.own == pytest.approx(weights[window, window], abs=1e-5)
        others = np.argsort(-np.where(np.arange(9) == window, -1, weights[window]))[:3]
        expected = [(other, weights[window, other]) for other in others if weights[window, other] >= 0.01]
        assert [other for other, _ in drawn.others] == [other for other, _ in expected]
        assert [weight for _, weight in drawn.others] == pytest.approx([weight for _, weight in expected], abs=1e-5)
    assert any(drawn.others for drawn in found)
    assert list(whole.in_context("none").drawn_on()) == []


def test_json_csv_and_the_picture_have_both_answers(grown: list[Timeline], tmp_path: Path) -> None:
    whole = grown[-1]
    found = json.loads(write_timeline(tmp_path / "t.json", whole, top_k=2).read_text())
    assert found == json.loads(json.dumps(to_json(whole, top_k=2)))
    assert found["context"] == "nonlocal"
    for window, (row, scores, raw) in enumerate(zip(found["windows"], whole.scores, whole.raw_scores, strict=True)):
        assert [s["index"] for s in row["top"]] == np.argsort(-scores, kind="stable")[:2].tolist()
        assert [s["score"] for s in row["raw_top"]] == sorted(raw.tolist(), reverse=True)[:2]
        assert row["own_weight"] + sum(other["weight"] for other in row["drawn_on"]) <= 1 + 1e-6
        for other in row["drawn_on"]:
            assert other["window"] != window
            assert other["start_seconds"] == whole.starts[other["window"]]
    rows = list(csv.DictReader(io.StringIO(to_csv(whole, top_k=1))))
    assert list(rows[0])[-5:] == ["raw_top1_label", "raw_top1_index", "raw_top1_score", "own_weight", "drawn_on"]
    for row, raw, window in zip(rows, whole.raw_scores, found["windows"], strict=True):
        assert float(row["raw_top1_score"]) == pytest.approx(raw.max())
        numbers = [int(pair.split(":")[0]) for pair in row["drawn_on"].split()]
        assert numbers == [other["window"] for other in window["drawn_on"]]
    both = Image.open(write_timeline(tmp_path / "both.png", whole)).height
    assert both > Image.open(write_timeline(tmp_path / "one.png", whole.in_context("none"))).height


def test_no_context_is_the_windows_own_answer(grown: list[Timeline]) -> None:
    alone = grown[-1].in_context("none")
    assert alone.scores.tobytes() == grown[-1].raw_scores.tobytes()
    assert alone.top(3, 2) == grown[-1].raw_top(3, 2) == alone.raw_top(3, 2)
    assert alone.in_context("nonlocal").scores.tobytes() == grown[-1].scores.tobytes()


def test_contexts_that_cannot_be(recognizer: Recognizer, grown: list[Timeline]) -> None:
    with pytest.raises(UsageError, match=r"context = 'some' should be one of nonlocal, none"):
        recognizer.timeline(grown[-1].path, context="some")
    with pytest.raises(UsageError, match=r"compares windows by their features"):
        replace(grown[-1], features=None).in_context("nonlocal")
