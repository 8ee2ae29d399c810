"""The frame rate of folders of JPEGs, which are clips if it is given: extracted frames have no times of their own."""

from __future__ import annotations

import math
import os
import re

from nonlocal_video.errors import UsageError

RATE_VARIABLE = "NONLOCAL_VIDEO_FRAMES_PER_SECOND"
"""Environment variable with the rate, which the option `--frames-per-second` sets for a command and its processes."""
_JPEGS = (".jpg", ".jpeg")
_MOST = 1000.0
_NUMBER = re.compile(r"(\d+)")


def checked_rate(value: float) -> float:
    """Return a rate in frames per second.

    Raises:
        UsageError: It is not above 0, or above 1000.
    """
    if not (math.isfinite(value) and 0 < value <= _MOST):
        raise UsageError(f"frames_per_second = {value:g} should be above 0, and at most {_MOST:g}.")
    return value


def rate_of_frame_folders() -> float | None:
    """Return the rate that the environment gives; None if folders of JPEGs are not clips.

    Raises:
        UsageError: It is not a number, or not a rate.
    """
    text = os.environ.get(RATE_VARIABLE)
    if not text:
        return None
    try:
        return checked_rate(float(text))
    except ValueError as error:
        raise UsageError(f"{RATE_VARIABLE} = {text!r} should be a number of frames per second.") from error


def is_jpeg(name: str) -> bool:
    """Return whether a file is a JPEG by its name; hidden files are not."""
    return name.lower().endswith(_JPEGS) and not name.startswith(".")


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Return a key by which 9.jpg comes before 10.jpg."""
    return [int(part) if part.isdecimal() else part for part in _NUMBER.split(name)], name
