"""The rows that every annotation format is read into and written from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

from nonlocal_video.errors import UsageError

OPTIONAL_FIELDS = ("group", "split", "score", "annotator")
_LISTED = 5


@dataclass(frozen=True)
class AnnotatedSegment:
    """A labelled span of one video, half-open, [start, end), in the player's seconds; a point where both are equal.

    Example:
        >>> AnnotatedSegment("a.mp4", 1.2, 3.4, "arm wrestling").is_point
        False
    """

    path: str
    start_seconds: float
    end_seconds: float
    label: str
    group: str | None = None
    split: str | None = None
    score: float | None = None
    annotator: str | None = None

    def __post_init__(self) -> None:
        times = (self.start_seconds, self.end_seconds)
        if not all(math.isfinite(time) for time in times) or not 0 <= self.start_seconds <= self.end_seconds:
            raise UsageError(
                f"start_seconds = {self.start_seconds:g} should be at least 0 and not after end_seconds = "
                f"{self.end_seconds:g}."
            )
        if not self.path or not self.label.strip():
            raise UsageError(f"A segment needs a path and a label, not {self.path!r} and {self.label!r}.")
        if self.score is not None and not math.isfinite(self.score):
            raise UsageError(f"score = {self.score} should be a finite number, or None.")

    @property
    def is_point(self) -> bool:
        """Whether this is an event without a duration."""
        return self.start_seconds == self.end_seconds


@dataclass(frozen=True)
class Annotations(Sequence[AnnotatedSegment]):
    """Segments of the file, in its order."""

    segments: tuple[AnnotatedSegment, ...]
    notes: tuple[str, ...] = ()
    """Notes on what was interpreted, and on what the rows have no place for."""
    problems: tuple[str, ...] = ()
    """Faults of the file, whose rows are therefore not among the segments."""

    @overload
    def __getitem__(self, index: int) -> AnnotatedSegment: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[AnnotatedSegment, ...]: ...
    def __getitem__(self, index: int | slice) -> AnnotatedSegment | tuple[AnnotatedSegment, ...]:
        return self.segments[index]

    def __len__(self) -> int:
        return len(self.segments)

    def __iter__(self) -> Iterator[AnnotatedSegment]:
        return iter(self.segments)


@dataclass
class Collector:
    """Gathers the segments of a file, and what is wrong with it."""

    segments: list[AnnotatedSegment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _cut: list[str] = field(default_factory=list)
    _before: list[str] = field(default_factory=list)

    def add(
        self,
        where: str,
        path: str,
        start_seconds: float,
        end_seconds: float,
        label: str,
        *,
        group: str | None = None,
        split: str | None = None,
        score: float | None = None,
        annotator: str | None = None,
    ) -> None:
        """Add a segment; one that cannot be becomes a problem, named by `where`, a place in the file.

        Offsets can move times below 0, before the file begins: what lies there is cut off, and a note says so.
        """
        if start_seconds < 0 <= end_seconds and end_seconds > 0:
            self._cut.append(where)
            start_seconds = 0.0
        elif start_seconds < 0 and end_seconds <= 0 and start_seconds <= end_seconds:
            self._before.append(where)
            return
        try:
            self.segments.append(
                AnnotatedSegment(path, start_seconds, end_seconds, label.strip(), group, split, score, annotator)
            )
        except UsageError as error:
            self.problems.append(f"{where}: {error}")

    def result(self) -> Annotations:
        """All that was gathered."""
        notes = list(self.notes)
        if self._cut:
            notes.append(f"{listed(self._cut)}: the part before the beginning of the video was cut off.")
        if self._before:
            notes.append(f"{listed(self._before)}: left out, as it lies before the beginning of the video.")
        return Annotations(tuple(self.segments), tuple(notes), tuple(self.problems))


def listed(names: Sequence[str], most: int = _LISTED) -> str:
    """The first few of a list in words, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, noun: str) -> str:
    """`1 event`, `2 events`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def by_video(segments: Iterable[AnnotatedSegment]) -> dict[str, list[AnnotatedSegment]]:
    """The segments of each video in order of time; videos in the order in which they first occur."""
    videos: dict[str, list[AnnotatedSegment]] = {}
    for segment in segments:
        videos.setdefault(segment.path, []).append(segment)
    for spans in videos.values():
        spans.sort(key=lambda span: (span.start_seconds, span.end_seconds))
    return videos


def without_overlap(segments: Iterable[AnnotatedSegment]) -> list[list[AnnotatedSegment]]:
    """Distribute the segments of a video over as few layers as possible, so that none overlaps another in its layer."""
    layers: list[list[AnnotatedSegment]] = []
    for segment in sorted(segments, key=lambda span: (span.start_seconds, span.end_seconds)):
        for layer in layers:
            if layer[-1].end_seconds <= segment.start_seconds:
                layer.append(segment)
                break
        else:
            layers.append([segment])
    return layers


def only_spans(
    segments: Iterable[AnnotatedSegment], format_name: str, *, least_seconds: float = 0.0
) -> tuple[list[AnnotatedSegment], list[str]]:
    """The segments that have a duration, and a note about those that have none, for formats without points."""
    kept, points = [], 0
    for segment in segments:
        if segment.end_seconds - segment.start_seconds > least_seconds:
            kept.append(segment)
        else:
            points += 1
    if not points:
        return kept, []
    return kept, [
        f"Left out: {counted(points, 'event')} without a duration, for which {format_name} has no place. "
        f"--point-seconds gives points a duration."
    ]


def with_point_seconds(segments: Iterable[AnnotatedSegment], seconds: float) -> list[AnnotatedSegment]:
    """Give points a duration, from the time of the event on."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"point-seconds = {seconds:g} should be above 0.")
    return [
        replace(segment, end_seconds=segment.start_seconds + seconds) if segment.is_point else segment
        for segment in segments
    ]


def dropped_fields(segments: Sequence[AnnotatedSegment], format_name: str, *kept: str) -> list[str]:
    """Say which of the optional fields a format has no place for."""
    lost = [
        name
        for name in OPTIONAL_FIELDS
        if name not in kept and any(getattr(segment, name) is not None for segment in segments)
    ]
    return [f"{format_name} has no place for {', '.join(lost)}: left out."] if lost else []
