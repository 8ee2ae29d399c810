"""A CSV of segments: which action from when to when, in videos that may hold many."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nonlocal_video.datasets.clip_table import SEGMENT_COLUMNS, read_rows
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.inference.prediction import printable

_NEEDED = SEGMENT_COLUMNS[:4]
_LISTED = 10
_ROUNDING_SECONDS = 0.001


@dataclass(frozen=True)
class Span:
    """A segment [start, end) with its class; a predicted one has a score."""

    start_seconds: float
    end_seconds: float
    label: str
    score: float = 1.0


@dataclass
class VideoSegments:
    """The segments of one video, in order of time; seconds are the player's."""

    path: str
    group: str | None = None
    split: str | None = None
    spans: list[Span] = field(default_factory=list)


@dataclass(frozen=True)
class SegmentTable:
    """All videos of a CSV, in its order, and what there is to say about them."""

    videos: tuple[VideoSegments, ...]
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The classes that occur, sorted."""
        return sorted({span.label for video in self.videos for span in video.spans})


def read_segments(
    source: str | os.PathLike[str], *, split: str | None = None, ignore_columns: Sequence[str] = ()
) -> SegmentTable:
    """Read a CSV `path,start_seconds,end_seconds,label[,group,split,score,annotator]`.

    Args:
        source: Paths count from its folder, or are URLs of object storage.
        split: Only the videos of this split.
        ignore_columns: Columns that are for other programs.

    Raises:
        UsageError: A column is missing or unknown, a row's times are no times, a video is in two splits or groups, or
            nothing is left.
    """
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"{str(source)!r} should be a CSV file {','.join(_NEEDED)}[,group,split].")
    needed = (*_NEEDED, *(["split"] if split is not None else []))
    videos: dict[str, VideoSegments] = {}
    for number, row in read_rows(path, needed=needed, ignore_columns=ignore_columns):
        where = f"{str(path)!r}, line {number}"
        values = {name: row.get(name, "").strip() for name in SEGMENT_COLUMNS}
        if not values["path"] or not values["label"]:
            raise UsageError(f"{where}: a row needs a path and a label.")
        span = Span(*_times(where, values), values["label"])
        full = values["path"] if is_remote(values["path"]) else str(path.parent / values["path"])
        video = videos.setdefault(full, VideoSegments(full, values["group"] or None, values["split"] or None))
        for name in ("group", "split"):
            if (values[name] or None) != getattr(video, name):
                raise UsageError(
                    f"{where}: {printable(values['path'])!r} has the {name} {values[name] or '(none)'!r} here and "
                    f"{getattr(video, name) or '(none)'!r} before. One video has one {name}, or training leaks into "
                    f"what is measured."
                )
        video.spans.append(span)
    for video in videos.values():
        video.spans.sort(key=lambda span: (span.start_seconds, span.end_seconds))
    kept = [video for video in videos.values() if split is None or video.split == split]
    if not kept:
        known = ", ".join(sorted({str(video.split) for video in videos.values()})) or "none"
        raise UsageError(f"There is no segment of split {split!r} in {str(source)!r}; its splits are: {known}.")
    return SegmentTable(tuple(kept), (*_torn_groups(list(videos.values())), *_overlaps(kept)))


def timing_notes(video: VideoSegments, end_seconds: float, window_seconds: float) -> list[str]:
    """Name the segments of a video that end after it, begin after it, or are shorter than a window."""
    name = printable(os.path.basename(video.path))
    beyond = [span for span in video.spans if span.end_seconds > end_seconds + _ROUNDING_SECONDS]
    short = [span for span in video.spans if span.end_seconds - span.start_seconds < window_seconds - _ROUNDING_SECONDS]
    notes = []
    if beyond:
        notes.append(
            f"{name}: {_listed(beyond)} go beyond the end of the video, {end_seconds:.2f} s; what is after it is not "
            f"measured."
        )
    if short:
        notes.append(f"{name}: {_listed(short)} are shorter than a window, {window_seconds:.2f} s.")
    return notes


def without_background(labels: Collection[str], background: Collection[str]) -> list[str]:
    """The labels that a model has to have.

    Raises:
        UsageError: A background class is in no segment.
    """
    unknown = sorted(set(background) - set(labels))
    if unknown:
        raise UsageError(f"background = {', '.join(map(repr, unknown))} is in no segment; labels: {', '.join(labels)}.")
    return [label for label in labels if label not in background]


def _times(where: str, values: dict[str, str]) -> tuple[float, float]:
    times = []
    for name in ("start_seconds", "end_seconds"):
        try:
            times.append(float(values[name]))
        except ValueError:
            raise UsageError(f"{where}: {name} = {values[name]!r} should be a number of seconds, like 12.5.") from None
    start, end = times
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
        raise UsageError(f"{where}: start_seconds = {start:g} should be at least 0 and before end_seconds = {end:g}.")
    return start, end


def _torn_groups(videos: Sequence[VideoSegments]) -> list[str]:
    splits: dict[str, set[str]] = {}
    for video in videos:
        if video.group and video.split:
            splits.setdefault(video.group, set()).add(video.split)
    return [
        f"Group {group!r} is in the splits {', '.join(sorted(found))}: what is measured is not independent of training."
        for group, found in sorted(splits.items())
        if len(found) > 1
    ]


def _overlaps(videos: Sequence[VideoSegments]) -> list[str]:
    notes = []
    for video in videos:
        both, latest = [], -math.inf
        for span in video.spans:
            if span.start_seconds < latest - _ROUNDING_SECONDS:
                both.append(span)
            latest = max(latest, span.end_seconds)
        if both:
            notes.append(
                f"{printable(os.path.basename(video.path))}: {_listed(both)} overlap earlier segments; where two "
                f"overlap, the grid of times has the later one."
            )
    return notes


def _listed(spans: Sequence[Span]) -> str:
    shown = [f"{span.label!r} {span.start_seconds:g}-{span.end_seconds:g} s" for span in spans[:_LISTED]]
    more = f" and {len(spans) - _LISTED} more" if len(spans) > _LISTED else ""
    return ", ".join(shown) + more
