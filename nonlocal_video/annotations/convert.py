"""Convert files of annotation tools into each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nonlocal_video.annotations.formats import format_of, read_annotations, write_annotations, writer_of
from nonlocal_video.annotations.options import LabelsFrom, base_name, is_remote
from nonlocal_video.annotations.segment import AnnotatedSegment, listed, with_point_seconds
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.info import VideoInfo


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion: segments, and what could not be carried over."""

    segments: tuple[AnnotatedSegment, ...]
    notes: tuple[str, ...]
    """Notes on what was interpreted, and on what the written format has no place for."""
    problems: tuple[str, ...]
    """Faults of the files that were read: these rows are missing in the one that was written."""


def convert_annotations(
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    media: str | os.PathLike[str] | None = None,
    media_folder: str | os.PathLike[str] | None = None,
    tiers: Sequence[str] = (),
    labels_from: LabelsFrom = "value",
    frames_per_second: float | None = None,
    by_timestamps: bool = False,
    video: str | None = None,
    point_seconds: float | None = None,
    url_prefix: str | None = None,
) -> Conversion:
    """Read files of annotation tools and write all their segments into one.

    Args:
        sources: Files to read, in this order.
        output: File to write; its ending names the format.
        media: As for `read_annotations`.
        media_folder: As for `read_annotations`.
        tiers: As for `read_annotations`.
        labels_from: As for `read_annotations`.
        frames_per_second: As for `read_annotations`.
        by_timestamps: As for `read_annotations`.
        video: Take only the segments of this video, a path or a file name.
        point_seconds: Duration that is given to events without one.
        url_prefix: As for `write_annotations`.

    Raises:
        UsageError: A file cannot be read, an option is wrong, or there is no segment to write.
    """
    output = Path(output)
    writer_of(output)
    segments: list[AnnotatedSegment] = []
    notes: list[str] = []
    problems: list[str] = []
    for source in sources:
        read = read_annotations(
            source,
            media=media,
            media_folder=media_folder,
            tiers=tiers,
            labels_from=labels_from,
            frames_per_second=frames_per_second,
            by_timestamps=by_timestamps,
        )
        before = f"{os.path.basename(os.fspath(source))}: " if len(sources) > 1 else ""
        segments += read.segments
        notes += [before + note for note in read.notes]
        problems += [before + problem for problem in read.problems]
    if video is not None:
        segments = _of_video(segments, video)
    if point_seconds is not None:
        segments = with_point_seconds(segments, point_seconds)
    if not segments:
        first = f" The first problem: {problems[0]}" if problems else ""
        raise UsageError(f"There is no segment in {', '.join(repr(os.fspath(s)) for s in sources)}.{first}")
    paths = list(dict.fromkeys(segment.path for segment in segments))
    local = [path for path in paths if not is_remote(path)]
    if absent := [base_name(path) for path in local if not os.path.isfile(path)]:
        notes.append(f"{listed(absent)}: not found; the path is written as it is. --media-folder looks elsewhere.")
    videos: dict[str, VideoInfo] = {}
    if format_of(output).needs_video:
        videos, unreadable = _probe([path for path in local if os.path.isfile(path)])
        notes += unreadable
    notes += write_annotations(
        output,
        segments,
        videos=videos,
        frames_per_second=frames_per_second,
        url_prefix=url_prefix,
    )
    return Conversion(tuple(segments), tuple(dict.fromkeys(notes)), tuple(problems))


def _of_video(segments: Sequence[AnnotatedSegment], video: str) -> list[AnnotatedSegment]:
    kept = [
        s for s in segments if video in (s.path, base_name(s.path)) or os.path.abspath(video) == os.path.abspath(s.path)
    ]
    if not kept:
        names = sorted({segment.path for segment in segments})
        raise UsageError(f"No segment is of video = {video!r}; there are segments of {listed(names)}.")
    return kept


def _probe(paths: Sequence[str]) -> tuple[dict[str, VideoInfo], list[str]]:
    videos: dict[str, VideoInfo] = {}
    notes = []
    with VideoReader() as reader:
        for path in paths:
            try:
                videos[path] = reader.probe(path)
            except VideoError as error:
                notes.append(f"{base_name(path)}: length and rate are not known ({error.message})")
    return videos, notes
