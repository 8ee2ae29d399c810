"""Packing of a frame's crops into one array that holds the pixels that they share once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nonlocal_video.video.transforms import SpatialView, cut


@dataclass(frozen=True)
class CropPosition:
    """Position of a square crop in packed frames."""

    top: int
    left: int
    size: int
    is_mirrored: bool = False
    """Whether left and right are exchanged after cutting."""

    def cut_out(self, frames_khwc: Tensor) -> Tensor:
        """Return the crop of packed frames, (K, H, W, 3) -> (K, size, size, 3): a view, unless it is mirrored."""
        crop = frames_khwc[:, self.top : self.top + self.size, self.left : self.left + self.size]
        return crop.flip(2) if self.is_mirrored else crop


@dataclass(frozen=True)
class CropLayout:
    """Crops of a resized frame in the smallest array (height, width, 3) of their rows and columns.

    Rows and columns that no crop has are left out. Three crops of 256 pixels at 0, 43 and 85 of a row of 341 take 341
    columns, not 768; three at 0, 900 and 1800 of a panorama take 768, not 2056.
    """

    crops: tuple[SpatialView, ...]
    positions: tuple[CropPosition, ...]
    """Position of each crop in the array."""
    height: int
    width: int

    @classmethod
    def of(cls, crops: Sequence[SpatialView], *, mirrored: Sequence[bool] = ()) -> CropLayout:
        """Pack crops of one frame.

        Args:
            crops: Crops; equal ones are stored once.
            mirrored: Whether each is mirrored; empty if none is.
        """
        rows = np.unique(np.concatenate([np.arange(crop.top, crop.top + crop.size) for crop in crops]))
        columns = np.unique(np.concatenate([np.arange(crop.left, crop.left + crop.size) for crop in crops]))
        positions = tuple(
            CropPosition(
                int(np.searchsorted(rows, crop.top)), int(np.searchsorted(columns, crop.left)), crop.size, is_mirrored
            )
            for crop, is_mirrored in zip(crops, mirrored or [False] * len(crops), strict=True)
        )
        return cls(tuple(crops), positions, len(rows), len(columns))

    @property
    def nbytes(self) -> int:
        """Size of a packed frame in bytes."""
        return 3 * self.height * self.width

    def pack(self, resized_thwc: Tensor, into: NDArray[np.uint8]) -> None:
        """Copy the crops of resized frames, uint8 (T, H', W', 3), into an array (T, height, width, 3).

        NumPy copies in this thread; PyTorch would start a team of threads in every thread that loads clips.
        """
        for crop, position in dict(zip(self.crops, self.positions, strict=True)).items():
            bottom, right = position.top + position.size, position.left + position.size
            into[:, position.top : bottom, position.left : right] = cut(resized_thwc, crop).numpy()
