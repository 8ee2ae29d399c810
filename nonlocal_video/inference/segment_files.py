"""Segments as a CSV that `check`, `train` and `evaluate` read, and each of them as a clip of its own."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.csv_cells import write_rows
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.inference.prediction import printable
from nonlocal_video.inference.timeline import Segment
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import VideoWriter
from nonlocal_video.video.transforms import resize

SEGMENT_COLUMNS = ("path", "start_seconds", "end_seconds", "label", "score")
_MAX_FRAMES_PER_SECOND = 120
_NAME_CHARACTERS = 60


def to_segments_csv(video: str, segments: Sequence[Segment], folder: Path) -> str:
    """A row for each segment that has a class: half-open [start, end), in the player's seconds.

    Args:
        video: The video's path; one that is not absolute is written as it is found from `folder`.
        segments: In order.
        folder: Where the CSV will lie.
    """
    path = video if is_remote(video) or os.path.isabs(video) else os.path.relpath(video, folder)
    rows = [
        {
            "path": printable(path),
            "start_seconds": segment.start_seconds,
            "end_seconds": segment.end_seconds,
            "label": segment.label,
            "score": round(segment.score, 6),
        }
        for segment in segments
        if segment.label is not None
    ]
    text = io.StringIO()
    # Not escaped for spreadsheets: other programs read these labels, and training takes them for classes.
    write_rows(text, list(SEGMENT_COLUMNS), rows, escape=False, lineterminator="\n")
    return text.getvalue()


def cut_segments(
    reader: VideoReader, video: str, segments: Sequence[Segment], folder: str | os.PathLike[str]
) -> list[Path]:
    """Write each segment that has a class as an MP4: what is shown from its start up to, but not at, its end.

    Frames are decoded and encoded again at the video's own mean rate, upright and without sound.

    Args:
        reader: Reads the video; one segment after the other, a few frames at a time.
        video: The video's path.
        segments: Their seconds are the player's.
        folder: Made if it is not there. Names are `NUMBER_START-END_LABEL.mp4`.

    Returns:
        The files, in order.

    Raises:
        UsageError: A file of that name is there already.
        OutputError: The folder or a file cannot be written.
        VideoError: The video breaks; clips before the damage are kept.
    """
    folder = Path(folder)
    named = [segment for segment in segments if segment.label is not None]
    paths = [folder / _name(number, segment) for number, segment in enumerate(named, start=1)]
    for path in paths:
        if os.path.lexists(path):
            raise UsageError(f"{str(path)!r} exists, and is not written over. Choose another --clips-dir, or empty it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, segment in zip(paths, named, strict=True):
            cut_clip(reader, video, segment.start_seconds, segment.end_seconds, path)
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror}. Choose another folder.") from error
    return paths


def frame_times(start_seconds: float, end_seconds: float, frames_per_second: float) -> tuple[list[float], Fraction]:
    """Return when the frames of a clip of [start, end) are shown, and how many a second there are.

    The rate is the one next to `frames_per_second` with which a whole number of frames, at least one, fills the clip. A
    frame is taken in the middle of the time for which it is shown.
    """
    length = Fraction(end_seconds) - Fraction(start_seconds)
    num_frames = max(1, round(length * Fraction(min(frames_per_second, _MAX_FRAMES_PER_SECOND))))
    times = start_seconds + (np.arange(num_frames) + 0.5) * float(length / num_frames)
    return times.tolist(), num_frames / length


def cut_clip(
    reader: VideoReader,
    video: str,
    start_seconds: float,
    end_seconds: float,
    path: Path,
    *,
    max_side: int | None = None,
) -> None:
    """Write what a video shows in [start, end) as an MP4, at its own mean rate, upright and without sound.

    Args:
        reader: Reads the video.
        video: Its path.
        start_seconds: Start of the part.
        end_seconds: End of the part.
        path: The file to write.
        max_side: Longest side of its frames in pixels, to which larger ones are reduced; None keeps their size.

    Raises:
        VideoError: The video cannot be read, or breaks.
        OutputError: The file cannot be written.
    """
    info = reader.probe(video)
    times, rate = frame_times(start_seconds, end_seconds, info.fps)
    with VideoWriter(path, fps=rate) as writer, reader.stream(video, times, chunk_frames=4) as stream:
        shown = iter(stream)
        chunk, first = next(shown), 0
        for frame in stream.frame_of_time.tolist():
            while frame >= first + len(chunk.frames_thwc):
                first += len(chunk.frames_thwc)
                chunk = next(shown)
            writer.write(_reduced(chunk.frames_thwc[frame - first], max_side))


def _reduced(frame: NDArray[np.uint8], max_side: int | None) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return frame
    size = max(1, round(height * max_side / max(height, width))), max(1, round(width * max_side / max(height, width)))
    return np.asarray(resize(torch.from_numpy(frame)[None], size)[0].numpy())


def _name(number: int, segment: Segment) -> str:
    label = re.sub(r"[^\w-]+", "_", segment.label or "").strip("_")[:_NAME_CHARACTERS]
    return f"{number:04d}_{segment.start_seconds:.2f}-{segment.end_seconds:.2f}_{label}.mp4"
