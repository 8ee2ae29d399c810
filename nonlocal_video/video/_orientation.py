"""From a display matrix to an upright picture."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes upright: mirrored left to right first, then turned clockwise."""

    clockwise_degrees: int = 0
    mirrored: bool = False

    @classmethod
    def from_display_matrix(cls, matrix: bytes) -> Orientation:
        """Read FFmpeg's display matrix: nine native 32-bit integers, (a b u / c d v / x y w).

        A stored point (x, y) is shown at (a x + c y, b x + d y), y pointing down, so a picture stored lying on its left
        side and shown after a quarter turn clockwise has a = d = 0, b > 0 and c < 0. Turns by other than quarters,
        which no camera writes, are rounded to the nearest.
        """
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
        mirrored = a * d - b * c < 0
        if mirrored:  # undo the mirroring of x to be left with the turn
            a, b = -a, -b
        quarter_turns = round(math.degrees(math.atan2(b, a)) / 90)
        return cls(clockwise_degrees=quarter_turns % 4 * 90, mirrored=mirrored)

    @property
    def swaps_sides(self) -> bool:
        return self.clockwise_degrees in (90, 270)

    def upright(self, picture_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn one picture (H, W, 3); the result is a view."""
        if self.mirrored:
            picture_hwc = picture_hwc[:, ::-1]
        return np.rot90(picture_hwc, k=-self.clockwise_degrees // 90)
