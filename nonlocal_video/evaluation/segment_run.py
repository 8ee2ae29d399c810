"""Measure the segments that a model finds in videos against the true ones."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonlocal_video.datasets.labelled import class_indices
from nonlocal_video.datasets.labelled_clip import LabelledClip, is_none_of_these
from nonlocal_video.datasets.segment_table import SegmentTable, Span, timing_notes, without_background
from nonlocal_video.errors import VideoError
from nonlocal_video.evaluation.segment_metrics import (
    FRAMES_PER_SECOND,
    NO_ACTION,
    SegmentedVideo,
    SegmentScores,
    measure_segments,
)
from nonlocal_video.inference.prediction import printable

if TYPE_CHECKING:
    from nonlocal_video.inference.recognizer import Recognizer


@dataclass(frozen=True)
class SegmentEvaluation:
    """Results, with the data and settings that they were measured with."""

    scores: SegmentScores
    videos: tuple[SegmentedVideo, ...]
    """Those that could be read."""
    unreadable: tuple[tuple[str, VideoError], ...]
    settings: dict[str, Any]
    notes: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Return the figures that `evaluate --segments --json` prints."""
        figures = asdict(self.scores)
        figures |= figures.pop("f1") | figures.pop("mean_average_precision")
        return {
            **self.settings,
            "videos": len(self.videos),
            "unreadable": [
                {"path": printable(path), "error": {"code": error.code, "message": error.message}}
                for path, error in self.unreadable
            ],
            **figures,
            "background": list(self.scores.background),
            "notes": list(self.notes),
        }


def evaluate_segments(
    recognizer: Recognizer,
    table: SegmentTable,
    *,
    timeline: dict[str, Any],
    rule: dict[str, float],
    background: Sequence[str] = (),
    frames_per_second: float = FRAMES_PER_SECOND,
    on_video: Callable[[int], None] = lambda done: None,
) -> SegmentEvaluation:
    """Find the segments of every video, each opened once, and compare them with the true ones.

    Args:
        recognizer: Answers.
        table: True segments.
        timeline: Arguments of `Recognizer.timeline`.
        rule: Arguments of `Timeline.segments`.
        background: Labels that are not actions; the model need not have them.
        frames_per_second: Of the grid on which frames are compared.
        on_video: Called after each video with the number done.

    Raises:
        UsageError: The model lacks a label, or an argument has a value that is not allowed.
    """
    if recognizer.card.taught is not None:  # such segments should have no class
        nones = [label for label in table.labels if is_none_of_these(label)]
        background = [*background, *(label for label in nones if label not in background)]
    labels = without_background(table.labels, background)
    indices = class_indices([LabelledClip("", label) for label in labels], recognizer.card.labels) if labels else []
    named = {label: recognizer.card.labels[index] for label, index in zip(labels, indices, strict=True)}
    videos: list[SegmentedVideo] = []
    unreadable: list[tuple[str, VideoError]] = []
    notes = list(table.notes)
    for done, video in enumerate(table.videos, start=1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a break is in the timeline's `error`, and noted below
                found = recognizer.timeline(video.path, **timeline)
        except VideoError as error:
            unreadable.append((video.path, error))
            on_video(done)
            continue
        if found.error is not None:
            notes.append(f"{printable(os.path.basename(video.path))}: measured up to where it breaks. {found.error}")
        notes += timing_notes(video, found.info.end_seconds, found.window_seconds)
        videos.append(
            SegmentedVideo(
                path=video.path,
                start_seconds=float(found.starts[0]),
                end_seconds=float(found.ends[-1]),
                truth=[
                    Span(span.start_seconds, span.end_seconds, named.get(span.label, span.label))
                    for span in video.spans
                ],
                found=[
                    Span(segment.start_seconds, segment.end_seconds, segment.label or NO_ACTION, segment.score)
                    for segment in found.segments(**rule)
                    if segment.label is not None
                ],
                group=video.group,
            )
        )
        on_video(done)
    scores = measure_segments(videos, background=background, frames_per_second=frames_per_second)
    region = timeline.get("region")
    settings = {
        "model": recognizer.card.name,
        **timeline,
        "region": None if region is None else str(region),
        **rule,
        "frames_per_second": frames_per_second,
    }
    return SegmentEvaluation(scores, tuple(videos), tuple(unreadable), settings, tuple(notes))


def found_rows(evaluation: SegmentEvaluation, folder: Path) -> list[dict[str, Any]]:
    """The segments that were found, as rows of a segments CSV that lies in `folder`."""
    rows = []
    for video in evaluation.videos:
        path = video.path if os.path.isabs(video.path) or "://" in video.path else os.path.relpath(video.path, folder)
        for span in video.found:
            rows.append({"path": printable(path), **asdict(span), "score": round(span.score, 6)})
    return rows
