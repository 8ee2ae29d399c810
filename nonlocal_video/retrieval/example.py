"""Examples to search for: a clip, or a moment of it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.fragment import split_part
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.retrieval.windows import Windows

ClipPath = str | os.PathLike[str]


@dataclass(frozen=True)
class SearchExample:
    """A clip, or a moment of it, that other moments should be like or unlike.

    Without `at`, `start_seconds` and `end_seconds` it is the whole clip.

    Raises:
        UsageError: The moment is given in two ways, or is not valid.

    Example:
        >>> SearchExample("match.mp4", at=12.5)
        SearchExample(path='match.mp4', at=12.5, start_seconds=None, end_seconds=None)
    """

    path: ClipPath
    """File or address of the clip."""
    at: float | None = None
    """Middle of the moment, in the player's seconds; it is as long as a window of the archive."""
    start_seconds: float | None = None
    """Start of the moment; None is the start of the clip."""
    end_seconds: float | None = None
    """End of the moment; None is the end of the clip."""

    def __post_init__(self) -> None:
        spans = {"start_seconds": self.start_seconds, "end_seconds": self.end_seconds}
        for name, seconds in {"at": self.at, **spans}.items():
            if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
                raise UsageError(f"{name} = {seconds:g} of {os.fspath(self.path)!r} should be a number from 0 on.")
        if self.at is not None and any(seconds is not None for seconds in spans.values()):
            raise UsageError("Give a moment by its middle (at) or by its span (start_seconds, end_seconds), not both.")
        start, end = self.start_seconds or 0.0, self.end_seconds
        if end is not None and end <= start:
            raise UsageError(f"end_seconds = {end:g} should be greater than start_seconds = {start:g}.")

    @classmethod
    def parse(cls, clip: ClipPath | SearchExample) -> SearchExample:
        """Make an example of a path; `CLIP#t=START,END` names a part of it.

        Example:
            >>> SearchExample.parse("match.mp4#t=12.5,15").end_seconds
            15.0
        """
        if isinstance(clip, SearchExample):
            return clip
        path, part = split_part(os.fspath(clip))
        return cls(path) if part is None else cls(path, None, *part)

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole clip."""
        return self.at is None and self.start_seconds is None and self.end_seconds is None


def file_number(path: ClipPath, windows: Windows) -> int | None:
    """Return the number of a file in an archive; None if it is not in it.

    Only files of the same name are compared on the disk, so that a large archive is not scanned file by file.
    """
    path = os.fspath(path)
    name = os.path.basename(path)
    for number, other in enumerate(windows.paths):
        if other == path:
            return number
        if os.path.basename(other) == name and not (is_remote(path) or is_remote(other)) and _is_same(path, other):
            return number
    return None


def rows_of_example(example: SearchExample, number: int, windows: Windows) -> NDArray[np.int64]:
    """Return the rows of an example's windows, at least one, in an archive that has its file.

    A moment by its middle is the window whose centre is nearest; a span is the windows whose centres it holds, else the
    one nearest to its middle.

    Raises:
        UsageError: The moment lies beyond the windows of the file.
    """
    rows = np.arange(*windows.rows_of(number))
    if example.is_whole:
        return rows
    first, last = float(windows.starts[rows].min()), float(windows.ends[rows].max())
    start = example.at if example.at is not None else example.start_seconds or 0.0
    if start > last:
        raise UsageError(
            f"{start:g} s of {os.fspath(example.path)!r} is not in the archive, whose windows of it cover {first:.2f} "
            f"to {last:.2f} s."
        )
    centres = windows.centres[rows]
    if example.at is not None:
        return rows[[int(np.argmin(np.abs(centres - example.at)))]]
    end = last if example.end_seconds is None else example.end_seconds
    inside = rows[(centres >= start) & (centres < end)]
    return inside if len(inside) else rows[[int(np.argmin(np.abs(centres - (start + min(end, last)) / 2)))]]


def _is_same(path: str, other: str) -> bool:
    if os.path.abspath(path) == os.path.abspath(other):
        return True
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
