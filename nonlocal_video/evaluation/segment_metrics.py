"""Measures of how well segments fit the true ones: on a grid of times, as sequences, and as detections.

Frame accuracy, edit score and F1@k are those of temporal action segmentation (Lea et al., CVPR 2017; Farha and Gall,
CVPR 2019); mean average precision at a temporal overlap is that of ActivityNet and THUMOS. All are in percent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nonlocal_video.datasets.segment_table import Span

OVERLAPS = (0.10, 0.25, 0.50)
"""Overlaps of F1@k."""
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Overlaps of the mean average precision, as on THUMOS14."""
FRAMES_PER_SECOND = 10.0
NO_ACTION = ""
"""The label of time that no segment covers."""


@dataclass(frozen=True)
class SegmentedVideo:
    """True and predicted segments of a video."""

    path: str
    start_seconds: float
    end_seconds: float
    truth: Sequence[Span]
    found: Sequence[Span]
    group: str | None = None


@dataclass(frozen=True)
class SegmentScores:
    """All figures in percent; None where nothing can be measured."""

    frame_accuracy: float | None
    class_mean: float | None
    edit: float | None
    f1: dict[str, float | None]
    """F1 by overlap: `f1@10`, `f1@25`, `f1@50`."""
    mean_average_precision: dict[str, float | None]
    """Mean average precision by temporal overlap: `map@0.3`, ..., and their mean as `map`."""
    num_frames: int
    num_true_segments: int
    num_found_segments: int
    """Both without background."""
    background: tuple[str, ...] = field(default=())


def measure_segments(
    videos: Sequence[SegmentedVideo],
    *,
    background: Collection[str] = (),
    frames_per_second: float = FRAMES_PER_SECOND,
) -> SegmentScores:
    """Compare found segments with the true ones.

    - Frame accuracy: the share of times of the grid at which both have the same label, all videos together. Time that
      no segment covers has a label of its own, and background counts like any class.
    - Class mean: the mean over the classes that occur in the truth of the share of their times that is found.
    - Edit: 1 - Levenshtein distance / length of the longer, of the two sequences of segments' classes, background left
      out; the mean over videos that have any.
    - F1@k: a found segment, in order of time, is right if the true one that it overlaps the most (intersection over
      union, of the same class) reaches k and was not found before. Summed over all videos.
    - Mean average precision: see `average_precision`; the mean over classes in the truth, background left out.

    Args:
        videos: Their times are the player's.
        background: Classes that are not actions, as is time without a segment.
        frames_per_second: Of the grid; a time is looked at in the middle of its frame.
    """
    right = frames = 0
    right_of: Counter[str] = Counter()
    frames_of: Counter[str] = Counter()
    edits: list[float] = []
    hits = {overlap: np.zeros(3) for overlap in OVERLAPS}  # right, found too much, missed
    no_actions = {NO_ACTION, *background}
    for video in videos:
        truth, found = (
            on_grid(spans, video.start_seconds, video.end_seconds, frames_per_second)
            for spans in (video.truth, video.found)
        )
        frames += len(truth)
        for one, other in zip(truth, found, strict=True):
            frames_of[one] += 1
            right_of[one] += one == other
            right += one == other
        true_runs, found_runs = runs(truth, no_actions), runs(found, no_actions)
        if true_runs or found_runs:
            edits.append(edit_score([run[0] for run in found_runs], [run[0] for run in true_runs]))
        for overlap in OVERLAPS:
            hits[overlap] += f1_counts(found_runs, true_runs, overlap)
    recalls = [right_of[label] / count for label, count in frames_of.items()]
    labels = sorted({span.label for video in videos for span in video.truth} - no_actions)
    precisions: dict[str, float | None] = {
        f"map@{tiou:g}": _percent([average_precision(videos, label, tiou) for label in labels]) for tiou in TIOUS
    }
    known = [value for value in precisions.values() if value is not None]
    return SegmentScores(
        frame_accuracy=100 * right / frames if frames else None,
        class_mean=_percent(recalls),
        edit=_percent(edits),
        f1={f"f1@{round(100 * overlap)}": _f1(*hits[overlap].tolist()) for overlap in OVERLAPS},
        mean_average_precision=precisions | {"map": float(np.mean(known)) if known else None},
        num_frames=frames,
        num_true_segments=sum(span.label not in no_actions for video in videos for span in video.truth),
        num_found_segments=sum(span.label not in no_actions for video in videos for span in video.found),
        background=tuple(sorted(background)),
    )


def on_grid(spans: Sequence[Span], start_seconds: float, end_seconds: float, frames_per_second: float) -> list[str]:
    """The label at the middle of each frame from start to end; of segments that overlap, that of the later one."""
    num = max(1, round((end_seconds - start_seconds) * frames_per_second))
    times = start_seconds + (np.arange(num) + 0.5) / frames_per_second
    labels = [NO_ACTION] * num
    for span in sorted(spans, key=lambda span: span.start_seconds):
        first, behind = np.searchsorted(times, [span.start_seconds, span.end_seconds])
        labels[first:behind] = [span.label] * int(behind - first)
    return labels


def runs(labels: Sequence[str], left_out: Collection[str] = ()) -> list[tuple[str, int, int]]:
    """(label, first frame, one after the last) of each longest run of one label, those of some labels left out."""
    found: list[tuple[str, int, int]] = []
    for frame, label in enumerate(labels):
        if found and found[-1][0] == label and found[-1][2] == frame:
            found[-1] = (label, found[-1][1], frame + 1)
        else:
            found.append((label, frame, frame + 1))
    return [run for run in found if run[0] not in left_out]


def edit_score(found: Sequence[str], truth: Sequence[str]) -> float:
    """1 - Levenshtein distance / length of the longer sequence; 1 of two empty ones."""
    if not found and not truth:
        return 1.0
    row = list(range(len(truth) + 1))
    for number, label in enumerate(found, start=1):
        before, row[0] = row[0], number
        for at, other in enumerate(truth, start=1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (label != other))
    return 1 - row[-1] / max(len(found), len(truth))


def f1_counts(
    found: Sequence[tuple[str, int, int]], truth: Sequence[tuple[str, int, int]], overlap: float
) -> tuple[int, int, int]:
    """Numbers of segments that are right, found too much, and missed."""
    taken = [False] * len(truth)
    for label, start, end in found:
        shares = [
            (min(end, other_end) - max(start, other_start)) / (max(end, other_end) - min(start, other_start))
            if label == other
            else 0.0
            for other, other_start, other_end in truth
        ]
        best = int(np.argmax(shares)) if shares else -1
        if best >= 0 and shares[best] >= overlap and not taken[best]:
            taken[best] = True
    right = sum(taken)
    return right, len(found) - right, len(truth) - right


def average_precision(videos: Sequence[SegmentedVideo], label: str, tiou: float) -> float:
    """Area under the interpolated precision of one class (PASCAL VOC 2010 and later).

    Predictions of all videos, the surest first (the earlier of equals), each take the true segment of their video that
    they overlap the most among those not yet taken; one is right if that overlap reaches `tiou`.
    """
    truths: Mapping[int, list[Span]] = {
        number: [span for span in video.truth if span.label == label] for number, video in enumerate(videos)
    }
    total = sum(map(len, truths.values()))
    found = [(number, span) for number, video in enumerate(videos) for span in video.found if span.label == label]
    found.sort(key=lambda pair: -pair[1].score)
    taken: set[tuple[int, int]] = set()
    right = np.zeros(len(found))
    for at, (number, span) in enumerate(found):
        free = [
            (tiou_of(span, other), -position)
            for position, other in enumerate(truths[number])
            if (number, position) not in taken
        ]
        best, position = max(free, default=(0.0, 0))
        if free and best >= tiou:
            taken.add((number, -position))
            right[at] = 1
    if not total or not len(found):
        return 0.0
    recall = np.concatenate([[0.0], np.cumsum(right) / total, [1.0]])
    precision = np.concatenate([[0.0], np.cumsum(right) / np.arange(1, len(found) + 1), [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision[1:]))


def tiou_of(one: Span, other: Span) -> float:
    """Intersection over union of two segments."""
    intersection = min(one.end_seconds, other.end_seconds) - max(one.start_seconds, other.start_seconds)
    if intersection <= 0:
        return 0.0
    lengths = (one.end_seconds - one.start_seconds) + (other.end_seconds - other.start_seconds)
    return intersection / (lengths - intersection)


def _f1(right: float, too_much: float, missed: float) -> float | None:
    return 200 * right / (2 * right + too_much + missed) if right + too_much + missed else None


def _percent(shares: Sequence[float]) -> float | None:
    return 100 * float(np.mean(shares)) if len(shares) else None
