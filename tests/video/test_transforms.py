"""Resize, crop and normalise as pytorchvideo does, and know where each pixel came from."""

from __future__ import annotations

import importlib.util
import platform
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
import pytorchvideo
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional

from nonlocal_video.errors import UsageError
from nonlocal_video.models.card import CropPlacement as CardCropPlacement
from nonlocal_video.models.card import LongerSide as CardLongerSide
from nonlocal_video.video.transforms import (
    CropPlacement,
    LongerSide,
    SpatialView,
    cut,
    normalise,
    resize,
    resize_short_side,
    resized_size,
    spatial_views,
)

SIZES = [(240, 320), (320, 240), (256, 256), (128, 171), (171, 128), (360, 641), (101, 77), (64, 300)]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """pytorchvideo/transforms/functional.py by its path: its package does not import with today's torchvision."""
    path = f"{pytorchvideo.__path__[0]}/transforms/functional.py"
    spec = importlib.util.spec_from_file_location("pytorchvideo_functional", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def smooth_frames(height: int, width: int) -> torch.Tensor:
    """Frames without detail finer than the resize keeps, so that smoothing has nothing to smooth."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    channels = [255 * y, 255 * x, 127 + 120 * torch.sin(3 * (x + y))]
    return torch.stack(channels, dim=-1).round().to(torch.uint8).expand(2, -1, -1, -1)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("short_side", [64, 224, 256])
def test_resize_is_pytorchvideos(reference: ModuleType, height: int, width: int, short_side: int) -> None:
    frames = smooth_frames(height, width)
    ours = resize_short_side(frames, short_side)
    theirs = reference.short_side_scale(frames.permute(3, 0, 1, 2).float(), short_side).permute(1, 2, 3, 0)
    assert ours.dtype == torch.uint8
    assert ours.shape == theirs.shape
    if min(height, width) <= short_side:  # no smaller, no smoothing: the same but for the rounding to whole levels
        assert (ours.float() - theirs).abs().max() <= 1.01
    else:  # theirs takes two of many pixels, ours an average; on smooth pictures both are near
        assert (ours.float() - theirs).abs()[:, 2:-2, 2:-2].max() <= 2.5


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("has_uint8_kernel", [True, False])
def test_resize_is_torchvisions_bit_for_bit(
    antialias: bool, count: int, has_uint8_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_uint8_kernel:  # as on a CPU without vector instructions
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    generator = torch.Generator().manual_seed(0)
    for height, width in SIZES:
        frames = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)
        for size in ((112, 150), (90, 64), (300, 400)):
            expected = functional.resize(frames.permute(0, 3, 1, 2), list(size), antialias=antialias)
            assert torch.equal(resize(frames, size, antialias=antialias), expected.permute(0, 2, 3, 1)), (height, size)


def test_resize_smooths_what_it_cannot_keep() -> None:
    stripes = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    assert (resize_short_side(stripes, 64)[:, :, 2:-2].float() - 127.5).abs().max() <= 2


def test_a_resize_to_the_same_size_changes_nothing() -> None:
    frames = torch.randint(0, 256, (3, 48, 64, 3), dtype=torch.uint8)
    assert torch.equal(resize_short_side(frames, 48), frames)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("short_side", "crop"), [(64, 64), (72, 56), (65, 48)])
def test_crops_are_pytorchvideos(reference: ModuleType, height: int, width: int, short_side: int, crop: int) -> None:
    resized = resize_short_side(torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8), short_side)
    views = spatial_views(height, width, short_side=short_side, crop=crop, num_crops=3)
    for index, view in enumerate(views):
        theirs = reference.uniform_crop(resized.permute(3, 0, 1, 2), crop, index)
        assert torch.equal(cut(resized, view).permute(3, 0, 1, 2), theirs)
    assert spatial_views(height, width, short_side=short_side, crop=crop) == (views[1],)


def test_normalise_is_the_formula() -> None:
    frames = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8)
    mean, std = (0.45, 0.5, 0.4), (0.225, 0.2, 0.25)
    made = normalise(frames, mean, std)
    expected = (frames.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    assert made.dtype == torch.float32
    assert made.is_contiguous()
    assert made.shape == (3, 5, 8, 8)
    torch.testing.assert_close(made.double(), expected.permute(3, 0, 1, 2), atol=1e-5, rtol=0)


@settings(deadline=None)
@given(
    height=st.integers(32, 400),
    width=st.integers(32, 400),
    short_side=st.integers(32, 256),
    crop_part=st.floats(0.5, 1),
    y=st.floats(0, 1),
    x=st.floats(0, 1),
)
def test_mapping_there_and_back(height: int, width: int, short_side: int, crop_part: float, y: float, x: float) -> None:
    crop = max(1, int(short_side * crop_part))
    for view in spatial_views(height, width, short_side=short_side, crop=crop, num_crops=3):
        there = view.input_to_frame(y * crop, x * crop)
        assert -1e-6 <= there[0] <= height + 1e-6
        assert -1e-6 <= there[1] <= width + 1e-6
        np.testing.assert_allclose(view.frame_to_input(*there), (y * crop, x * crop), atol=1e-6)
        top, left, bottom, right = view.frame_box
        assert top - 1e-6 <= there[0] <= bottom + 1e-6
        assert left - 1e-6 <= there[1] <= right + 1e-6
        rows, _ = view.frame_to_input(np.array([there[0]] * 2), np.array([there[1]] * 2))
        np.testing.assert_allclose(rows, y * crop, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (90, 110)])
@pytest.mark.parametrize("num_crops", [1, 3])
def test_a_planted_square_is_where_the_mapping_says(height: int, width: int, num_crops: int) -> None:
    short_side, crop = 128, 112
    for view in spatial_views(height, width, short_side=short_side, crop=crop, num_crops=num_crops):
        y, x = (round(value) for value in view.input_to_frame(40.0, 70.0))
        frames = torch.zeros(1, height, width, 3, dtype=torch.uint8)
        frames[:, y - 8 : y + 8, x - 8 : x + 8] = 255
        seen = cut(resize_short_side(frames, short_side), view)[0, :, :, 0].double()
        total = seen.sum()
        centre_y = float((seen.sum(1) * (torch.arange(crop) + 0.5)).sum() / total)
        centre_x = float((seen.sum(0) * (torch.arange(crop) + 0.5)).sum() / total)
        np.testing.assert_allclose((centre_y, centre_x), view.frame_to_input(float(y), float(x)), atol=0.05)


def test_resized_size_rounds_the_long_side_down() -> None:
    assert resized_size(240, 320, 256) == (256, 341)
    assert resized_size(320, 240, 256) == (341, 256)
    assert resized_size(100, 100, 7) == (7, 7)


def test_resized_size_to_the_nearest_pixel_is_mmcvs() -> None:
    """`int(side * scale + 0.5)` of both sides, the scale being 256 / the shorter one."""
    assert resized_size(300, 400, 256, "nearest") == (256, 341)  # 341.33
    assert resized_size(360, 641, 256, "nearest") == (256, 456)  # 455.82
    assert resized_size(641, 360, 256, "nearest") == (456, 256)
    assert resized_size(512, 769, 256, "nearest") == (256, 385)  # 384.5: halves go up
    assert resized_size(360, 641, 256) == (256, 455)


@settings(deadline=None)
@given(height=st.integers(32, 1200), width=st.integers(32, 1200), short_side=st.integers(32, 320))
def test_the_nearest_longer_side_is_mmcvs_for_all_sizes(height: int, width: int, short_side: int) -> None:
    scale = short_side / min(height, width)
    theirs = int(height * scale + 0.5), int(width * scale + 0.5)
    assert resized_size(height, width, short_side, "nearest") == theirs


@pytest.mark.parametrize(("height", "width"), [(240, 321), (240, 322), (321, 240), (240, 240), (240, 241)])
def test_steps_rounded_down_are_those_of_video_nonlocal_net_and_mmaction2(height: int, width: int) -> None:
    """They halve what is free in whole numbers and take that step 0, 1 and 2 times: 81 free pixels end at 80."""
    views = spatial_views(height, width, short_side=240, crop=240, num_crops=3, crop_placement="steps_rounded_down")
    step = (max(height, width) - 240) // 2
    assert [view.left for view in views] == ([0, step, 2 * step] if width >= height else [0] * 3)
    assert [view.top for view in views] == ([0, step, 2 * step] if height > width else [0] * 3)
    (centre,) = spatial_views(height, width, short_side=240, crop=240, crop_placement="steps_rounded_down")
    assert centre == views[1]


def test_an_odd_number_of_free_pixels_is_where_the_placements_differ() -> None:
    up = [view.left for view in spatial_views(256, 261, short_side=256, crop=256, num_crops=3)]
    down = spatial_views(256, 261, short_side=256, crop=256, num_crops=3, crop_placement="steps_rounded_down")
    assert (up, [view.left for view in down]) == ([0, 3, 5], [0, 2, 4])


def test_the_longer_side_counts_where_the_squares_are_placed() -> None:
    (down,) = spatial_views(360, 641, short_side=256, crop=256)
    (nearest,) = spatial_views(360, 641, short_side=256, crop=256, longer_side="nearest")
    assert ((down.resized_width, down.left), (nearest.resized_width, nearest.left)) == ((455, 100), (456, 100))


def test_a_models_card_names_the_same_crops_and_sides() -> None:
    assert get_args(CardCropPlacement) == get_args(CropPlacement)
    assert get_args(CardLongerSide) == get_args(LongerSide)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UsageError, match="num_crops"):
        spatial_views(10, 10, short_side=8, crop=8, num_crops=2)
    with pytest.raises(UsageError, match="crop"):
        spatial_views(10, 10, short_side=8, crop=9)
    with pytest.raises(UsageError, match="uint8"):
        resize_short_side(torch.zeros(1, 8, 8, 3), 4)
    (view,) = spatial_views(10, 10, short_side=8, crop=8)
    with pytest.raises(UsageError, match="8 x 8"):
        cut(torch.zeros(1, 10, 10, 3, dtype=torch.uint8), view)
    with pytest.raises(UsageError, match="inside"):
        SpatialView(10, 10, 8, 8, 4, 4, 8)


def test_resize_without_smoothing_and_without_keeping_proportions_is_torchvisions_presets() -> None:
    """torchvision's r3d_18 preset: (128, 171), antialias=False, then the centre square."""
    frames = torch.randint(0, 256, (2, 240, 426, 3), dtype=torch.uint8)
    preset = torchvision.models.video.R3D_18_Weights.KINETICS400_V1.transforms()
    expected = preset(frames.permute(0, 3, 1, 2))  # (T, H, W, C) -> (T, C, H, W) in, (C, T, 112, 112) out
    (view,) = spatial_views(240, 426, short_side=128, crop=112, resize_to=(128, 171))
    square = cut(resize(frames, (128, 171), antialias=False), view)
    ours = normalise(square, tuple(preset.mean), tuple(preset.std))
    # theirs resizes in float32, ours gives whole levels: half a level of 255, and one more where theirs lies at a half
    assert (ours - expected).abs().max() <= 1.01 / 255 / min(preset.std)
    smoothed = cut(resize(frames, (128, 171)), view)
    assert (smoothed.float() - square.float()).abs().max() > 20
