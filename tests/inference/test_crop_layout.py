"""Crops that share pixels are stored once, and come out of it as they were cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nonlocal_video.inference.crop_layout import CropLayout
from nonlocal_video.video.transforms import SpatialView, spatial_views


def view(top: int, left: int, height: int, width: int, size: int) -> SpatialView:
    return SpatialView(height, width, height, width, top, left, size)


@pytest.mark.parametrize(
    ("height", "width", "num_crops", "size"),
    [
        (40, 56, 1, (32, 32)),
        (40, 56, 3, (32, 56)),  # crops at 0, 12 and 24 cover the width
        (57, 40, 3, (57, 32)),
        (40, 300, 3, (32, 96)),  # a panorama: what lies between the crops is left out
    ],
)
def test_crops_side_by_side(height: int, width: int, num_crops: int, size: tuple[int, int]) -> None:
    crops = spatial_views(height, width, short_side=40, crop=32, num_crops=num_crops)
    check(CropLayout.of(crops), size)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(40, 56, (40, 56)), (64, 64, (64, 64)), (150, 200, (96, 96)), (32, 32, (32, 32))]
)
def test_five_crops_and_their_mirror_images(height: int, width: int, size: tuple[int, int]) -> None:
    ends_y, ends_x = (0, height - 32), (0, width - 32)
    crops = [view(top, left, height, width, 32) for top in ends_y for left in ends_x]
    crops.append(view((height - 32) // 2, (width - 32) // 2, height, width, 32))
    check(CropLayout.of(crops * 2, mirrored=[False] * 5 + [True] * 5), size)


def check(layout: CropLayout, size: tuple[int, int]) -> None:
    """Compare packed crops with slices of the frames."""
    first = layout.crops[0]
    frames = np.random.default_rng(0).integers(
        0, 256, (3, first.resized_height, first.resized_width, 3), dtype=np.uint8
    )
    packed = np.zeros((3, layout.height, layout.width, 3), dtype=np.uint8)
    layout.pack(torch.from_numpy(frames), packed)
    assert (layout.height, layout.width) == size
    assert layout.nbytes == packed[0].nbytes
    for crop, position in zip(layout.crops, layout.positions, strict=True):
        expected = frames[:, crop.top : crop.top + crop.size, crop.left : crop.left + crop.size]
        if position.is_mirrored:
            expected = expected[:, :, ::-1]
        np.testing.assert_array_equal(position.cut_out(torch.from_numpy(packed)).numpy(), expected)
