"""Display size of a stored picture, whose pixels need not be square."""

from __future__ import annotations

from fractions import Fraction

_MOST_ELONGATED = 10
"""Largest ratio of a pixel's sides. Standards go up to 4:1, two views packed into one picture to 2:1; more means a
broken header."""
_ROUNDED_PIXELS = 1.0
"""Largest change of a side, in pixels, that is ignored. Encoders that keep the aspect ratio write a ratio near 1 when
they round a size to an even number, as ffmpeg's `scale=-2:H` does. Resampling for that would only blur the picture."""


def shown_size(width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int, str | None]:
    """Return the width and height at which a stored picture is shown, and a note if its header is invalid.

    Wide pixels widen the picture and tall pixels heighten it, as in players, so that no detail is lost.

    Args:
        width: Stored width.
        height: Stored height.
        pixel_aspect: Width of a pixel divided by its height; None if the file does not specify it.
    """
    if pixel_aspect is None or pixel_aspect <= 0:
        return width, height, None
    if not 1 / _MOST_ELONGATED <= pixel_aspect <= _MOST_ELONGATED:
        ratio = f"{pixel_aspect.numerator}:{pixel_aspect.denominator}"
        return (
            width,
            height,
            f"The file says that its pixels are {ratio} (width:height), which is invalid; it is shown as 1:1.",
        )
    wide, high = width * max(pixel_aspect, Fraction(1)), height / min(pixel_aspect, Fraction(1))
    if max(wide - width, high - height) <= _ROUNDED_PIXELS:
        return width, height, None
    return round(wide), round(high), None
