"""The sampled frames of a clip in one image, with arrows from a query to the positions with the greatest weights.

After figures 1 and 3 of Wang et al. (CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import atan2, cos, hypot, sin
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nonlocal_video.attention.maps import AttentionMaps, Target, evenly_spaced_frames

MAX_FRAMES = 12
NUM_ARROWS = 5
GAP = 6
"""Gap between frames, in pixels."""
_TEXT_LINES = 14  # in a frame's height: still legible where the sheet is shown at a smaller size
_BACKGROUND = (128, 128, 128)  # suits dark and white pages
_ARROW = (0, 255, 255)
_BOW = 0.12  # distance of an arrow's control point from its middle, as a share of its length
_SMOOTH = 2  # Pillow does not antialias, so arrows are drawn larger and scaled down


class SampledFrames(Protocol):
    """Frames sampled from a clip: an explanation, or its maps."""

    @property
    def frame_of_time(self) -> NDArray[np.int64]:
        """Index of the distinct frame for each sampled one, (T,)."""
        ...

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Return sampled frame `index`, (height, width, 3)."""
        ...


@dataclass(frozen=True)
class ContactSheet:
    """Layout of sampled frames in one image.

    Example:
        >>> sheet = ContactSheet(frames=(0, 4, 8, 12), width=80, height=60)
        >>> sheet.columns, sheet.size
        (4, (338, 60))
    """

    frames: tuple[int, ...]
    """Indices of the sampled frames, in rows from left to right."""
    width: int
    """Width of one frame, in pixels."""
    height: int
    """Height of one frame, in pixels."""

    @classmethod
    def from_frames(cls, sampled: SampledFrames) -> ContactSheet:
        """Lay out up to `MAX_FRAMES` evenly spaced frames of an explanation or of its maps."""
        height, width = sampled.frame(0).shape[:2]
        return cls(tuple(evenly_spaced_frames(sampled.frame_of_time, MAX_FRAMES)), width, height)

    @property
    def columns(self) -> int:
        """Number of frames in a row."""
        return min(len(self.frames), 4 if self.width >= self.height else 6)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image, in pixels."""
        rows = -(-len(self.frames) // self.columns)
        return self.columns * (self.width + GAP) - GAP, rows * (self.height + GAP) - GAP

    def corner(self, position: int) -> tuple[int, int]:
        """Return the left and upper edge of the frame at `position`, in pixels."""
        row, column = divmod(position, self.columns)
        return column * (self.width + GAP), row * (self.height + GAP)

    def point_at(self, left: float, top: float) -> tuple[int, float, float] | None:
        """Return the sampled frame at a pixel, and the fractions (x, y) of it; None between frames."""
        column, x = divmod(left, self.width + GAP)
        row, y = divmod(top, self.height + GAP)
        position = int(row) * self.columns + int(column)
        inside = x < self.width and y < self.height and 0 <= column < self.columns and 0 <= position < len(self.frames)
        return (self.frames[position], x / self.width, y / self.height) if inside else None

    def pixel_of(self, index: int, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point (fractions) of sampled frame `index`, in the nearest frame on the sheet."""
        position = min(range(len(self.frames)), key=lambda position: abs(self.frames[position] - index))
        left, top = self.corner(position)
        return left + x * self.width, top + y * self.height

    def draw(self, maps: AttentionMaps, targets: Sequence[Target] = ()) -> NDArray[np.uint8]:
        """Draw the frames with their maps, and an arrow from the query to each target.

        Args:
            maps: Maps of the clip that this sheet was made for.
            targets: Positions that the query attends to; empty for maps without a query.

        Returns:
            RGB image (height, width, 3).
        """
        picture = Image.new("RGB", self.size, _BACKGROUND)
        maps = replace(maps, caption="")  # every frame shows its time, and the page shows the rest
        for position, index in enumerate(self.frames):
            picture.paste(Image.fromarray(maps.draw_frame(index, lines=_TEXT_LINES)), self.corner(position))
        if maps.query is not None and maps.query_index is not None:
            start = self.pixel_of(maps.query_index, maps.query.x, maps.query.y)
            ends = [self.pixel_of(target.index, target.x, target.y) for target in targets]
            radius = max(self.height // 40, 3)
            for width, colour in ((5, (0, 0, 0)), (2, _ARROW)):
                mask = Image.new("L", (self.size[0] * _SMOOTH, self.size[1] * _SMOOTH))
                pen = ImageDraw.Draw(mask)
                for end in ends:
                    _arrow(pen, start, end, radius, width)
                picture.paste(colour, mask=mask.resize(self.size, Image.Resampling.BOX))
        return np.asarray(picture)


def _arrow(
    pen: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], radius: float, width: int
) -> None:
    """Draw a bow from the edge of the query's mark to `end`, the tip of its head. Bows in one row do not overlap."""
    across, down = end[0] - start[0], end[1] - start[1]
    length = hypot(across, down)
    if length <= 2 * radius:
        return
    middle = start[0] + across / 2 + _BOW * down, start[1] + down / 2 - _BOW * across
    share = np.linspace(radius / length, 1 - 6 / length, 24)[:, None]  # the line ends inside the head
    bow = (1 - share) ** 2 * np.array(start) + 2 * share * (1 - share) * np.array(middle) + share**2 * np.array(end)
    pen.line([(x * _SMOOTH, y * _SMOOTH) for x, y in bow], fill=255, width=width * _SMOOTH, joint="curve")
    angle = atan2(end[1] - middle[1], end[0] - middle[0])
    border = (width - 2) / 2  # the dark edge of the head, as wide as that of the line
    corners = ((2 * border, 0.0), (-11 - 2 * border, 0.42), (-11 - 2 * border, -0.42))
    pen.polygon(
        [
            ((end[0] + far * cos(angle + turn)) * _SMOOTH, (end[1] + far * sin(angle + turn)) * _SMOOTH)
            for far, turn in corners
        ],
        fill=255,
    )
