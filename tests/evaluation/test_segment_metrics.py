"""Figures of segments against independent restatements, with the empty cases and known pitfalls."""

from __future__ import annotations

import itertools
import operator
from functools import lru_cache, reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, recall_score

from nonlocal_video.datasets.segment_table import Span
from nonlocal_video.evaluation.segment_metrics import (
    OVERLAPS,
    TIOUS,
    SegmentedVideo,
    average_precision,
    edit_score,
    f1_counts,
    measure_segments,
    on_grid,
    runs,
)

CLASSES = ("walk", "jump", "rest")


@st.composite
def videos(draw: st.DrawFn) -> list[SegmentedVideo]:
    """Up to three videos of segments that touch or leave gaps; found ones with scores."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        random = np.random.default_rng(draw(st.integers(0, 10**6)))
        sides: list[list[Span]] = []
        for _ in range(2):
            bounds = np.unique(random.integers(0, 40, random.integers(1, 8)) / 4).tolist()
            sides.append(
                [
                    Span(start, end, str(random.choice(CLASSES)), float(random.random()))
                    for start, end in itertools.pairwise(bounds)
                    if random.random() < 0.8
                ]
            )
        made.append(SegmentedVideo(f"{number}.mp4", 0.0, 10.0, *sides))
    return made


def sampled(spans: list[Span]) -> list[str]:
    times = (np.arange(100) + 0.5) / 10
    return [next((s.label for s in spans if s.start_seconds <= t < s.end_seconds), "") for t in times]


def blocks(labels: list[str], background: set[str]) -> list[tuple[str, set[int]]]:
    """Runs as sets of frames."""
    found: list[tuple[str, set[int]]] = []
    for frame, label in enumerate(labels):
        if frame and labels[frame - 1] == label:
            found[-1][1].add(frame)
        else:
            found.append((label, {frame}))
    return [block for block in found if block[0] not in background]


def levenshtein(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    @lru_cache(None)
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        change = distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, change)

    return distance(len(one), len(other))


def f1_of(pairs: list[tuple[list[tuple[str, set[int]]], list[tuple[str, set[int]]]]], overlap: float) -> float | None:
    right = found_number = true_number = 0
    for found, truth in pairs:
        used: set[int] = set()
        for label, frames in found:
            shares = [len(frames & other) / len(frames | other) if label == name else 0.0 for name, other in truth]
            if shares and max(shares) >= overlap and shares.index(max(shares)) not in used:
                used.add(shares.index(max(shares)))
                right += 1
        found_number, true_number = found_number + len(found), true_number + len(truth)
    if not found_number + true_number:
        return None
    precision = right / found_number if found_number else 0.0
    recall = right / true_number if true_number else 0.0
    return 100 * 2 * precision * recall / (precision + recall) if right else 0.0


@settings(deadline=None, max_examples=60)
@given(videos(), st.sets(st.sampled_from(CLASSES), max_size=1))
def test_grid_and_sequence_figures(made: list[SegmentedVideo], background: set[str]) -> None:
    scores = measure_segments(made, background=background)
    pairs = [(sampled(list(video.found)), sampled(list(video.truth))) for video in made]
    found: list[str] = reduce(operator.iadd, (labels for labels, _ in pairs), [])
    truth: list[str] = reduce(operator.iadd, (labels for _, labels in pairs), [])
    assert scores.frame_accuracy == pytest.approx(100 * accuracy_score(truth, found))
    names = sorted(set(truth))
    expected = recall_score(truth, found, labels=names, average="macro", zero_division=0)
    assert scores.class_mean == pytest.approx(100 * expected)
    left_out = {"", *background}
    in_blocks = [(blocks(one, left_out), blocks(other, left_out)) for one, other in pairs]
    edits = []
    for one, other in in_blocks:
        names_of = tuple(label for label, _ in one), tuple(label for label, _ in other)
        if any(names_of):
            edits.append(1 - levenshtein(*names_of) / max(map(len, names_of)))
    assert scores.edit == (pytest.approx(100 * np.mean(edits)) if edits else None)
    for overlap in OVERLAPS:
        value = f1_of(in_blocks, overlap)
        assert scores.f1[f"f1@{round(100 * overlap)}"] == (None if value is None else pytest.approx(value))


def restated_ap(made: list[SegmentedVideo], label: str, tiou: float) -> float:
    """The precision that is reached at each right answer or later, a share of all true segments each."""
    order = sorted(
        ((video, span) for video in made for span in video.found if span.label == label),
        key=lambda pair: -pair[1].score,
    )
    left = {video.path: [span for span in video.truth if span.label == label] for video in made}
    total = sum(map(len, left.values()))
    right: list[bool] = []
    for video, span in order:

        def overlap(other: Span, span: Span = span) -> float:
            inside = max(0.0, min(span.end_seconds, other.end_seconds) - max(span.start_seconds, other.start_seconds))
            return inside / (span.end_seconds - span.start_seconds + other.end_seconds - other.start_seconds - inside)

        best = max(left[video.path], key=overlap, default=None)
        right.append(best is not None and overlap(best) >= tiou)
        if right[-1] and best is not None:
            left[video.path].remove(best)
    precisions: NDArray[np.float64] = np.cumsum(right) / np.arange(1, len(right) + 1)
    return sum(float(precisions[at:].max()) for at, is_right in enumerate(right) if is_right) / total if total else 0.0


@settings(deadline=None, max_examples=60)
@given(videos())
def test_average_precision(made: list[SegmentedVideo]) -> None:
    scores = measure_segments(made)
    labels = sorted({span.label for video in made for span in video.truth})
    for tiou in TIOUS:
        each = [restated_ap(made, label, tiou) for label in labels]
        for label, expected in zip(labels, each, strict=True):
            assert average_precision(made, label, tiou) == pytest.approx(expected)
        value = scores.mean_average_precision[f"map@{tiou:g}"]
        assert value == (pytest.approx(100 * np.mean(each)) if labels else None)


def test_background_counts_in_accuracy_alone() -> None:
    truth = [Span(0, 2, "rest"), Span(2, 4, "jump")]
    video = SegmentedVideo("a.mp4", 0, 4, truth, [Span(0, 1, "walk"), Span(1, 2, "rest"), Span(2, 4, "jump", 0.9)])
    with_rest, without = measure_segments([video]), measure_segments([video], background={"rest"})
    assert with_rest.frame_accuracy == without.frame_accuracy == 75
    assert with_rest.edit == pytest.approx(100 * 2 / 3)
    assert without.edit == 50  # walk, jump against jump
    assert (without.num_true_segments, without.num_found_segments, without.background) == (1, 2, ("rest",))
    assert without.mean_average_precision["map"] == 100


def test_a_second_hit_on_a_taken_segment_is_one_too_much() -> None:
    truth = [("jump", 0, 10), ("jump", 20, 24)]
    assert f1_counts([("jump", 0, 5), ("jump", 5, 10)], truth, 0.5) == (1, 1, 1)


def test_what_is_empty() -> None:
    nothing = measure_segments([SegmentedVideo("a.mp4", 0, 1, [], [])])
    assert (nothing.frame_accuracy, nothing.edit, nothing.f1["f1@50"]) == (100.0, None, None)
    assert nothing.mean_average_precision["map"] is None
    assert measure_segments([]).frame_accuracy is None
    missed = measure_segments([SegmentedVideo("a.mp4", 0, 1, [Span(0, 1, "jump")], [])])
    assert (missed.frame_accuracy, missed.edit, missed.f1["f1@10"]) == (0.0, 0.0, 0.0)
    assert missed.mean_average_precision["map"] == 0.0
    assert edit_score([], []) == 1.0


def test_the_grid_is_half_open_and_the_later_of_two_wins() -> None:
    spans = [Span(0.0, 0.3, "walk"), Span(0.2, 0.5, "jump")]
    assert on_grid(spans, 0.0, 0.6, 10) == ["walk", "walk", "jump", "jump", "jump", ""]
    assert runs(["a", "a", "b", "a"], {"b"}) == [("a", 0, 2), ("a", 3, 4)]
