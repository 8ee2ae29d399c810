"""A part of a video as one name: `match.mp4#t=12.5,15`, as W3C's media fragments write it."""

from __future__ import annotations

import os
import re

import numpy as np

_FRAGMENT = re.compile(r"(?s)(.+)#t=(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)")


def with_part(path: str, start_seconds: float, end_seconds: float) -> str:
    """The name of the part [start, end) of a video; `split_part` gives both back.

    Example:
        >>> with_part("match.mp4", 12.5, 15.0)
        'match.mp4#t=12.5,15'
    """
    start, end = (np.format_float_positional(seconds, trim="-") for seconds in (start_seconds, end_seconds))
    return f"{path}#t={start},{end}"


def split_part(path: str) -> tuple[str, tuple[float, float] | None]:
    """A video's path, and the start and end of the part of it that is named; None is all of it.

    A file whose own name ends so is itself.
    """
    found = _FRAGMENT.fullmatch(path)
    if found is None or os.path.lexists(path):
        return path, None
    return found[1], (float(found[2]), float(found[3]))
