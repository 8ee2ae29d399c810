"""A region of interest: the part of the frame to analyse, as fractions of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nonlocal_video.errors import PartError, UsageError

LEAST_SIDE = 16
"""Smallest side of a region in pixels; anything smaller has nothing to recognise."""

PixelBox = tuple[int, int, int, int]
"""Top, left, bottom, right, in pixels; the last two are exclusive."""


@dataclass(frozen=True)
class Region:
    """A rectangle of the upright frame as it is shown, from (x0, y0) to (x1, y1).

    x runs from the left in fractions of the width, y from the top in fractions of the height. The region replaces the
    whole frame: its shorter side is resized to the model's, and crops lie inside it.

    Raises:
        UsageError: If the edges are not ascending fractions.

    Example:
        >>> Region(0.5, 0, 1, 1).pixels(height=240, width=320)  # the right half
        (0, 160, 240, 320)
    """

    x0: float
    """Left edge, as a fraction of the width."""
    y0: float
    """Top edge, as a fraction of the height."""
    x1: float
    """Right edge."""
    y1: float
    """Bottom edge."""

    def __post_init__(self) -> None:
        if not (0 <= self.x0 < self.x1 <= 1 and 0 <= self.y0 < self.y1 <= 1):
            raise UsageError(
                f"region = {self} should be X0,Y0,X1,Y1, the left, top, right and bottom edge in fractions of the "
                f"picture's width and height, with 0 <= X0 < X1 <= 1 and 0 <= Y0 < Y1 <= 1."
            )

    def __str__(self) -> str:
        """Return the region as `--region` takes it."""
        return ",".join(f"{edge:.12g}" for edge in (self.x0, self.y0, self.x1, self.y1))

    @classmethod
    def parse(cls, value: RegionLike) -> Region | None:
        """Return a value as a region; None for the whole frame.

        Args:
            value: A region, a sequence of its four numbers, or the text "X0,Y0,X1,Y1". None, an empty text and 0, 0, 1,
                1 are the whole frame.

        Raises:
            UsageError: If it is not four numbers, or not a rectangle inside the frame.
        """
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if isinstance(value, Region):
            region = value
        else:
            try:
                x0, y0, x1, y1 = (float(edge) for edge in (value.split(",") if isinstance(value, str) else value))
            except (TypeError, ValueError):
                raise UsageError(
                    f"region = {value!r} should be X0,Y0,X1,Y1: four fractions of the picture's width and height, like "
                    f"0.5,0,1,1 for its right half."
                ) from None
            region = cls(x0, y0, x1, y1)
        return None if (region.x0, region.y0, region.x1, region.y1) == (0, 0, 1, 1) else region

    @property
    def note(self) -> str:
        """Sentence for the notes of a prediction."""
        return (
            f"Only the region {self} of the picture was analysed: {self.x0:.0%} to {self.x1:.0%} of its width "
            f"from the left, {self.y0:.0%} to {self.y1:.0%} of its height from the top."
        )

    @property
    def model_note(self) -> str:
        """Sentence for the card of a model that was trained in this region alone."""
        return f"Trained on the region {self} of the frame only: give the same region, --region {self}, to use it."

    def pixels(self, height: int, width: int) -> PixelBox:
        """Return the region in pixels.

        Each edge is rounded to the nearest edge between two pixels, halves to the right and down: of 101 pixels, 0.25
        to 0.75 is 25.25 to 75.75 and thus pixels 25 to 75.

        Args:
            height: Height of the upright frame.
            width: Width of the upright frame.

        Raises:
            PartError: If a side has fewer than 16 pixels.
        """
        top, bottom = (math.floor(edge * height + 0.5) for edge in (self.y0, self.y1))
        left, right = (math.floor(edge * width + 0.5) for edge in (self.x0, self.x1))
        if min(bottom - top, right - left) < LEAST_SIDE:
            raise PartError(
                f"region = {self} is {right - left} x {bottom - top} pixels of this video's {width} x {height}; take "
                f"one of at least {LEAST_SIDE} x {LEAST_SIDE}."
            )
        return top, left, bottom, right


RegionLike = Region | Sequence[float] | str | None
