"""Lists of segments: which action from when to when, in videos that may hold many."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nonlocal_video.annotations.boris_tables import is_boris_table
from nonlocal_video.annotations.formats import read_annotations
from nonlocal_video.annotations.segments_csv import read_table
from nonlocal_video.datasets.clip_table import SEGMENT_COLUMNS, has_path_column, is_segment_header, read_rows
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.inference.prediction import printable

ANNOTATION_ENDINGS = (".eaf", ".boris", ".json", ".vtt", ".srt")
"""Endings of files of annotation tools: ELAN, BORIS, Label Studio and ActivityNet, WebVTT, SRT."""
TABLE_ENDINGS = (".csv", ".tsv")
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


def holds_segments(path: str | os.PathLike[str]) -> bool:
    """Return whether a file lists segments: one of an annotation tool by its ending, or a table by its columns."""
    path = Path(path)
    if path.suffix.lower() in ANNOTATION_ENDINGS:
        return True
    return path.suffix.lower() in TABLE_ENDINGS and (is_segment_header(path) or is_table_of_tool(path))


def read_segments(
    source: str | os.PathLike[str], *, split: str | None = None, ignore_columns: Sequence[str] = ()
) -> SegmentTable:
    """Read a CSV `path,start_seconds,end_seconds,label[,group,split,score,annotator]`, or a file of an annotation tool.

    Args:
        source: Paths count from its folder, or are URLs of object storage. ELAN, BORIS, Label Studio, ActivityNet,
            WebVTT and SRT are read as by `read_annotations`; events without a duration are left out, with a note.
        split: Only the videos of this split.
        ignore_columns: Columns of the CSV that are for other programs.

    Raises:
        UsageError: A column is missing or unknown, a row's times are no times, a video is in two splits or groups, or
            nothing is left.
    """
    path = Path(source)
    if not path.is_file():
        raise UsageError(
            f"{str(source)!r} should be a CSV file {','.join(_NEEDED)}[,group,split], or one of an annotation tool."
        )
    rows: Iterable[_Row]
    notes: tuple[str, ...]
    if path.suffix.lower() in ANNOTATION_ENDINGS or is_table_of_tool(path):
        rows, notes = _rows_of_tool(path)
    else:
        needed = (*_NEEDED, *(["split"] if split is not None else []))
        rows, notes = _rows_of_csv(path, needed, ignore_columns), ()
    videos: dict[str, VideoSegments] = {}
    for row in rows:
        video = videos.setdefault(row.path, VideoSegments(row.path, row.group, row.split))
        for name in ("group", "split"):
            if getattr(row, name) != getattr(video, name):
                raise UsageError(
                    f"{row.where}: {printable(row.path)!r} has the {name} {getattr(row, name) or '(none)'!r} here and "
                    f"{getattr(video, name) or '(none)'!r} before. One video has one {name}, or training leaks into "
                    f"what is measured."
                )
        video.spans.append(row.span)
    for video in videos.values():
        video.spans.sort(key=lambda span: (span.start_seconds, span.end_seconds))
    kept = [video for video in videos.values() if split is None or video.split == split]
    if not kept:
        known = ", ".join(sorted({str(video.split) for video in videos.values()})) or "none"
        raise UsageError(f"There is no segment of split {split!r} in {str(source)!r}; its splits are: {known}.")
    return SegmentTable(tuple(kept), (*notes, *_torn_groups(list(videos.values())), *_overlaps(kept)))


@dataclass(frozen=True)
class _Row:
    where: str
    """Place in the file, for messages."""
    path: str
    span: Span
    group: str | None
    split: str | None


def _rows_of_csv(path: Path, needed: Sequence[str], ignore_columns: Sequence[str]) -> Iterator[_Row]:
    for number, row in read_rows(path, needed=needed, ignore_columns=ignore_columns):
        where = f"{str(path)!r}, line {number}"
        values = {name: row.get(name, "").strip() for name in SEGMENT_COLUMNS}
        if not values["path"] or not values["label"]:
            raise UsageError(f"{where}: a row needs a path and a label.")
        span = Span(*_times(where, values), values["label"])
        full = values["path"] if is_remote(values["path"]) else str(path.parent / values["path"])
        yield _Row(where, full, span, values["group"] or None, values["split"] or None)


def _rows_of_tool(path: Path) -> tuple[list[_Row], tuple[str, ...]]:
    """Return the segments of a file of an annotation tool, and notes on what was interpreted or left out."""
    found = read_annotations(path)
    if found.problems:
        more = f" and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        raise UsageError(
            f"{str(path)!r} has segments that cannot be read: {found.problems[0]}{more}. Correct them in the tool, or "
            f"keep the others: nonlocal-video annotations convert {path} OUT.segments.csv"
        )
    rows = [
        _Row(repr(str(path)), one.path, Span(one.start_seconds, one.end_seconds, one.label), one.group, one.split)
        for one in found
        if not one.is_point
    ]
    points = len(found) - len(rows)
    left_out = (f"{points} events without a duration were left out.",) if points else ()
    return rows, (*found.notes, *left_out)


def is_table_of_tool(path: Path) -> bool:
    """Return whether a CSV or TSV is a table of BORIS; those of this project have a column `path`."""
    return path.suffix.lower() in TABLE_ENDINGS and not has_path_column(path) and is_boris_table(read_table(path))


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
