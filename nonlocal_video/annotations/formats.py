"""Read and write annotations in the format that a file's ending names."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nonlocal_video.annotations.activitynet import is_activitynet, read_activitynet, write_activitynet
from nonlocal_video.annotations.boris import is_boris, read_boris, write_boris
from nonlocal_video.annotations.boris_tables import is_boris_table, read_boris_table
from nonlocal_video.annotations.documents import read_json
from nonlocal_video.annotations.elan import read_eaf
from nonlocal_video.annotations.elan_file import write_eaf
from nonlocal_video.annotations.label_studio import is_label_studio, read_label_studio, write_label_studio
from nonlocal_video.annotations.options import LabelsFrom, ReadOptions, WriteOptions
from nonlocal_video.annotations.segment import AnnotatedSegment, Annotations
from nonlocal_video.annotations.segments_csv import read_segments_csv, read_table, write_segments_csv
from nonlocal_video.annotations.subtitles import read_srt, read_vtt, write_srt, write_vtt
from nonlocal_video.errors import UsageError
from nonlocal_video.io import atomic_write
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.info import VideoInfo

Reader = Callable[[Path, ReadOptions], Annotations]
Writer = Callable[[Sequence[AnnotatedSegment], WriteOptions], tuple[str, list[str]]]


@dataclass(frozen=True)
class Format:
    """Reader and writer of the files of one ending."""

    read: Reader
    write: Writer | None = None
    needs_video: bool = False
    """Whether the written file holds lengths or rates of the videos."""


def read_annotations(
    path: str | os.PathLike[str],
    *,
    media: str | os.PathLike[str] | None = None,
    media_folder: str | os.PathLike[str] | None = None,
    tiers: Sequence[str] = (),
    labels_from: LabelsFrom = "value",
    frames_per_second: float | None = None,
    by_timestamps: bool = False,
) -> Annotations:
    """Read a file of an annotation tool: .eaf, .boris, .vtt, .srt, .json (Label Studio, ActivityNet), .csv, .tsv.

    Args:
        path: The file; its ending names the format, and the content of a .json or .csv whose it is.
        media: The video, where the file does not name it or names it wrongly.
        media_folder: Look for the videos in this folder by their names.
        tiers: Read only these tiers (ELAN), controls (Label Studio) or subjects (BORIS).
        labels_from: Take the label from the annotation's value, its tier's name, or both (`tier: value`).
        frames_per_second: Rate at which a file counts frames, if it does and does not say.
        by_timestamps: Frame numbers are those of the video's own frames, so that the times hold at which it shows them.

    Returns:
        The segments, with `notes` about what was interpreted or left out, and `problems`, what could not be read.

    Raises:
        UsageError: It is no such file, or an option is missing or wrong.

    Example:
        >>> for segment in read_annotations("session1.eaf", tiers=["action"]):  # doctest: +SKIP
        ...     print(segment.path, segment.start_seconds, segment.end_seconds, segment.label)
    """
    path = Path(path)
    if by_timestamps and frames_per_second is not None:
        raise UsageError("by-timestamps takes the video's own times, frames-per-second a rate: give one of the two.")
    with ExitStack() as stack:
        frame_times = _frame_times(stack.enter_context(VideoReader())) if by_timestamps else None
        options = ReadOptions(
            media=None if media is None else os.fspath(media),
            media_folder=None if media_folder is None else os.fspath(media_folder),
            tiers=tuple(tiers),
            labels_from=labels_from,
            frames_per_second=frames_per_second,
            frame_times=frame_times,
        )
        return format_of(path).read(path, options)


def write_annotations(
    path: str | os.PathLike[str],
    segments: Iterable[AnnotatedSegment],
    *,
    videos: Mapping[str, VideoInfo] | None = None,
    frames_per_second: float | None = None,
    url_prefix: str | None = None,
) -> tuple[str, ...]:
    """Write segments as a file of an annotation tool; a file of that name is replaced.

    Args:
        path: .eaf, .boris, .labelstudio.json, .activitynet.json, .vtt, .srt, .segments.csv or another .csv.
        segments: In any order. ELAN's files and subtitles are of one video.
        videos: What is known of the videos, by the segments' paths, for formats that hold lengths or rates.
        frames_per_second: Rate at which Label Studio is to count frames; else the video's.
        url_prefix: Put before the name of each video for Label Studio, which reads no local paths.

    Returns:
        What the format has no place for.

    Raises:
        UsageError: An unknown ending, or segments that the format cannot hold.

    Example:
        >>> rows = [AnnotatedSegment("a.mp4", 1.2, 3.4, "arm wrestling", score=0.93)]
        >>> write_annotations("a.eaf", rows)  # doctest: +SKIP
        ()
    """
    path = Path(path)
    write = writer_of(path)
    options = WriteOptions(path.parent, videos or {}, frames_per_second, url_prefix)
    text, notes = write(list(segments), options)
    with atomic_write(path) as file:
        file.write(text.encode())
    return tuple(notes)


def format_of(path: Path) -> Format:
    """The format that a file's ending names.

    Raises:
        UsageError: An unknown ending.
    """
    name = path.name.casefold()
    found = max((ending for ending in FORMATS if name.endswith(ending)), key=len, default=None)
    if found is None:
        raise UsageError(f"{str(path)!r} should end in one of {', '.join(FORMATS)}.")
    return FORMATS[found]


def writer_of(path: Path) -> Writer:
    """The writer of the format that a file's ending names.

    Raises:
        UsageError: An unknown ending, or one that is only read.
    """
    write = format_of(path).write
    if write is None:
        written = ", ".join(ending for ending, row in FORMATS.items() if row.write is not None)
        raise UsageError(f"{str(path)!r} should end in one of {written}.")
    return write


def _read_json(path: Path, options: ReadOptions) -> Annotations:
    """Read JSON of the tool that its content shows."""
    document = read_json(path)
    for is_one, read in (
        (is_boris, read_boris),
        (is_activitynet, read_activitynet),
        (is_label_studio, read_label_studio),
    ):
        if is_one(document):
            return read(path, options)
    raise UsageError(f"{str(path)!r} is JSON, but neither Label Studio's nor ActivityNet's nor a project of BORIS.")


def _read_table(path: Path, options: ReadOptions) -> Annotations:
    """Read a segments CSV or a table of BORIS, whichever its columns show."""
    read = read_boris_table if is_boris_table(read_table(path)) else read_segments_csv
    return read(path, options)


def _frame_times(reader: VideoReader) -> Callable[[str], Sequence[float]]:
    """Return when each frame of a video is shown, and then when the last one ends; each video is read once."""

    @functools.cache
    def times(path: str) -> list[float]:
        return [*reader.frame_times(path).tolist(), reader.probe(path).end_seconds]

    return times


FORMATS: dict[str, Format] = {
    ".segments.csv": Format(_read_table, write_segments_csv),
    ".csv": Format(_read_table, write_segments_csv),
    ".tsv": Format(_read_table),
    ".eaf": Format(read_eaf, write_eaf),
    ".boris": Format(read_boris, write_boris, needs_video=True),
    ".labelstudio.json": Format(read_label_studio, write_label_studio, needs_video=True),
    ".activitynet.json": Format(read_activitynet, write_activitynet, needs_video=True),
    ".json": Format(_read_json),
    ".vtt": Format(read_vtt, write_vtt),
    ".srt": Format(read_srt, write_srt),
}
"""Formats by the ending of a file's name; the longest one that fits holds."""
