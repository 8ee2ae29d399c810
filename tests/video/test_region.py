"""A part of the picture: its pixels, and the squares that lie inside of it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as nn_functional
from hypothesis import given, settings
from hypothesis import strategies as st

from nonlocal_video.errors import UsageError
from nonlocal_video.video.region import LEAST_SIDE, Region
from nonlocal_video.video.transforms import cut, resize_region, resized_size, spatial_views


@pytest.mark.parametrize("given_as", ["0.5,0,1,0.75", " 0.5, 0 ,1,0.75 ", (0.5, 0, 1, 0.75), [0.5, 0, 1, 0.75]])
def test_a_region_is_given_as_text_or_numbers(given_as: object) -> None:
    region = Region.parse(given_as)
    assert region == Region(0.5, 0, 1, 0.75) == Region.parse(str(region)) == Region.parse(region)
    assert str(region) == "0.5,0,1,0.75"
    assert Region.parse(np.array([0.5, 0, 1, 0.75])) == region


@pytest.mark.parametrize("whole", [None, "", " ", "0,0,1,1", (0, 0, 1, 1), Region(0, 0, 1, 1)])
def test_the_whole_picture_is_no_region(whole: object) -> None:
    assert Region.parse(whole) is None


@pytest.mark.parametrize(
    "wrong",
    ["0.5", "a,b,c,d", "0,0,1", "0,0,1,1,1", (1, 2), 7, "0.5,0,0.5,1", "0.6,0,0.5,1", "0,-0.1,1,1", "0,0,1.01,1",
     "nan,0,1,1", (0, 0, float("inf"), 1), ((0, 0), (1, 1))],
)  # fmt: skip
def test_what_is_no_region_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError, match=r"region = .*should be X0,Y0,X1,Y1"):
        Region.parse(wrong)


def nearest_edge(fraction: float, length: int) -> int:
    """The edge between two pixels that is nearest, halves up, in exact numbers."""
    place = Fraction(fraction) * length
    return min(range(length + 1), key=lambda edge: (abs(edge - place), -edge))


@settings(deadline=None)
@given(
    edges=st.tuples(*[st.integers(0, 64)] * 4).filter(lambda e: e[0] < e[2] and e[1] < e[3]),
    height=st.integers(200, 700),
    width=st.integers(200, 700),
)
def test_edges_go_to_the_nearest_edge_of_a_pixel(edges: tuple[int, ...], height: int, width: int) -> None:
    region = Region(*(edge / 64 for edge in edges))
    box = (
        nearest_edge(region.y0, height),
        nearest_edge(region.x0, width),
        nearest_edge(region.y1, height),
        nearest_edge(region.x1, width),
    )
    if min(box[2] - box[0], box[3] - box[1]) < LEAST_SIDE:
        with pytest.raises(UsageError, match="at least 16 x 16"):
            region.pixels(height, width)
    else:
        assert region.pixels(height, width) == box


def test_a_region_of_too_few_pixels_is_refused() -> None:
    assert Region(0, 0, 0.05, 1).pixels(240, 320) == (0, 0, 240, 16)
    with pytest.raises(UsageError, match=r"region = 0,0,0.04,1 is 13 x 240 pixels of this video's 320 x 240"):
        Region(0, 0, 0.04, 1).pixels(240, 320)


@pytest.mark.parametrize("num_crops", [1, 3])
@pytest.mark.parametrize("resize_to", [None, (56, 72)])
@pytest.mark.parametrize("numbers", [(0.5, 0, 1, 1), (0.1, 0.2, 0.37, 0.9), (0, 0.33, 0.9, 0.66)])
def test_a_region_takes_the_frames_place(
    numbers: tuple[float, ...], resize_to: tuple[int, int] | None, num_crops: int
) -> None:
    """The same squares as of frames that were cropped by hand before anything else, and the same pixels."""
    height, width = 121, 203
    frames = torch.randint(0, 256, (3, height, width, 3), dtype=torch.uint8)
    left, top, right, bottom = (
        nearest_edge(edge, length) for edge, length in zip(numbers, (width, height, width, height), strict=True)
    )
    by_hand = frames[:, top:bottom, left:right].clone()
    how = {"short_side": 56, "crop": 48, "num_crops": num_crops, "resize_to": resize_to}
    views = spatial_views(height, width, region=Region(*numbers), **how)
    plain = spatial_views(bottom - top, right - left, **how)
    assert [(v.top, v.left, v.size) for v in views] == [(v.top, v.left, v.size) for v in plain]
    size = resize_to or resized_size(bottom - top, right - left, 56)
    smooth = nn_functional.interpolate(
        by_hand.permute(0, 3, 1, 2).float(), size, mode="bilinear", antialias=True, align_corners=False
    )
    resized = resize_region(frames, views[0])
    for view, of_crop in zip(views, plain, strict=True):
        seen = cut(resized, view)
        assert torch.equal(seen, cut(resize_region(by_hand, of_crop), of_crop))
        expected = smooth[:, :, view.top : view.top + 48, view.left : view.left + 48].permute(0, 2, 3, 1)
        assert (seen.float() - expected).abs().max() <= 1.01  # of 255, by rounding to whole values
        # Positions of the input lie in the frame where they do in the crop, shifted by its corner; and back.
        for y, x in ((0.0, 0.0), (48.0, 48.0), (10.5, 31.25)):
            in_frame = view.input_to_frame(y, x)
            assert in_frame == pytest.approx(np.add(of_crop.input_to_frame(y, x), (top, left)))
            assert view.frame_to_input(*in_frame) == pytest.approx((y, x))
        x0, y0, x1, y1 = view.seen
        assert left / width - 1e-9 <= x0 < x1 <= right / width + 1e-9
        assert top / height - 1e-9 <= y0 < y1 <= bottom / height + 1e-9
        assert (x1 - x0) * width == pytest.approx(48 * (right - left) / size[1])


def test_nothing_outside_of_a_region_is_seen() -> None:
    frames = torch.randint(0, 256, (2, 100, 160, 3), dtype=torch.uint8)
    (view,) = spatial_views(100, 160, short_side=64, crop=64, region=Region(0.25, 0.1, 0.75, 0.9))
    before = resize_region(frames, view)
    top, left, bottom, right = view.box
    changed = torch.full_like(frames, 255)
    changed[:, top:bottom, left:right] = frames[:, top:bottom, left:right]
    assert torch.equal(resize_region(changed, view), before)
    assert math.prod(before.shape[1:3]) == view.resized_height * view.resized_width
