"""Spatial transforms from frames to a network's input, and from the input's pixels back to the frame's."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from nonlocal_video.errors import UsageError
from nonlocal_video.video.region import PixelBox, Region

Position = TypeVar("Position", float, NDArray[np.float64])
CropPlacement = Literal["centre_rounded_up", "centre_rounded_to_even", "steps_rounded_down"]
LongerSide = Literal["rounded_down", "nearest"]


@dataclass(frozen=True)
class SpatialView:
    """Position of the network's square input in the frame.

    The frame, or a region of it, is resized as a whole, then a square crop is cut out. Positions are continuous: pixel
    i covers [i, i + 1) and its centre is i + 0.5, the convention of bilinear resizing (`align_corners=False`). Mapping
    a position is therefore a shift and a scale:

        frame 640 wide, resized to 320, left = 40: input position 0 (the left edge of the first pixel) is frame
        position 80, and the centre of the first input pixel, 0.5, is frame position 81, between frame pixels 80 and 81.

    Raises:
        UsageError: If the square is not inside the resized frame.
    """

    frame_height: int
    """Height of the frame, in pixels."""
    frame_width: int
    """Width of the frame."""
    resized_height: int
    """Height of the resized frame."""
    resized_width: int
    """Width of the resized frame."""
    top: int
    """Top edge of the crop in the resized frame."""
    left: int
    """Left edge of the crop in the resized frame."""
    size: int
    """Side of the crop."""
    region_box: PixelBox | None = None
    """Pixels of the frame that are resized; None for all of them."""

    def __post_init__(self) -> None:
        inside = 0 <= self.top <= self.resized_height - self.size and 0 <= self.left <= self.resized_width - self.size
        if self.size < 1 or self.frame_height < 1 or self.frame_width < 1 or not inside:
            raise UsageError(f"{self} should be a square inside the resized frame.")

    def input_to_frame(self, y: Position, x: Position) -> tuple[Position, Position]:
        """Map positions (y, x) in the network's input, numbers or arrays, to the frame."""
        top, left, bottom, right = self.box
        return (
            top + (self.top + y) * (bottom - top) / self.resized_height,
            left + (self.left + x) * (right - left) / self.resized_width,
        )

    def frame_to_input(self, y: Position, x: Position) -> tuple[Position, Position]:
        """Map positions (y, x) in the frame to the network's input; those outside [0, size] are not in the crop."""
        top, left, bottom, right = self.box
        return (
            (y - top) * self.resized_height / (bottom - top) - self.top,
            (x - left) * self.resized_width / (right - left) - self.left,
        )

    @property
    def box(self) -> PixelBox:
        """Pixels of the frame that are resized: top, left, bottom, right."""
        return self.region_box or (0, 0, self.frame_height, self.frame_width)

    @property
    def frame_box(self) -> tuple[float, float, float, float]:
        """Crop in the frame, in pixels: top, left, bottom, right."""
        return *self.input_to_frame(0.0, 0.0), *self.input_to_frame(float(self.size), float(self.size))

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """Crop in the frame, as fractions of its width and height: left, top, right, bottom."""
        top, left, bottom, right = self.frame_box
        height, width = self.frame_height, self.frame_width
        return left / width, top / height, min(right / width, 1.0), min(bottom / height, 1.0)


def resized_size(height: int, width: int, short_side: int, longer_side: LongerSide = "rounded_down") -> tuple[int, int]:
    """Return height and width, in pixels, for a given shorter side.

    The longer side is rounded down as in pytorchvideo, or to the nearest pixel, halves up, as in mmcv's `rescale_size`.

    Example:
        >>> resized_size(240, 320, short_side=256)
        (256, 341)
    """
    shorter, longer = sorted((height, width))
    if longer_side == "nearest":
        resized = math.floor(longer * (short_side / shorter) + 0.5)  # in mmcv's order of operations, for its halves
    else:
        resized = math.floor(longer / shorter * short_side)
    return (resized, short_side) if width < height else (short_side, resized)


def resize_short_side(frames_thwc: Tensor, short_side: int) -> Tensor:
    """Resize frames to a shorter side, in pixels, as `resize` does: uint8 (T, H, W, 3) -> (T, H', W', 3)."""
    return resize(frames_thwc, resized_size(frames_thwc.shape[1], frames_thwc.shape[2], short_side))


def resize(frames_thwc: Tensor, size: tuple[int, int], *, antialias: bool = True) -> Tensor:
    """Resize frames bilinearly.

    Args:
        frames_thwc: Frames, uint8 (T, H, W, 3).
        size: Height and width of the result, in pixels.
        antialias: Whether frames are smoothed when they shrink.

    Returns:
        Frames, uint8 (T, H', W', 3).

    Raises:
        UsageError: If the frames have another type or shape.
    """
    if frames_thwc.dtype != torch.uint8 or frames_thwc.ndim != 4 or frames_thwc.shape[3] != 3:
        shape = tuple(frames_thwc.shape)
        raise UsageError(f"frames_thwc is {frames_thwc.dtype} {shape}, should be uint8 (T, H, W, 3).")
    if size == tuple(frames_thwc.shape[1:3]):
        return frames_thwc
    frames_tchw = frames_thwc.permute(0, 3, 1, 2)  # a view in channels-last layout, the fastest for the uint8 kernel
    # As torchvision's `resize`, whose import takes longer than PyTorch's own. Without vector instructions the uint8
    # kernel is slower than float32 with rounding, and gives other bits.
    in_uint8 = frames_thwc.device.type == "cpu" and _has_uint8_kernel()
    values = frames_tchw if in_uint8 else frames_tchw.float()
    resized = interpolate(values, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    return (resized if in_uint8 else resized.round_().to(torch.uint8)).permute(0, 2, 3, 1)


def _has_uint8_kernel() -> bool:
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")


def resize_region(
    frames_thwc: Tensor, view: SpatialView, *, antialias: bool = True, is_cut_out: bool = False
) -> Tensor:
    """Cut out the region of a view, if it is not the whole frame, and resize it to the view's size.

    Pixels outside the region have no influence, not even at its edge.

    Args:
        frames_thwc: Frames, uint8 (T, H, W, 3).
        view: View with the region and its size.
        antialias: Whether frames are smoothed when they shrink.
        is_cut_out: Whether the frames are that region already.

    Returns:
        Frames, uint8 (T, H', W', 3).
    """
    top, left, bottom, right = view.box
    part = frames_thwc if is_cut_out else frames_thwc[:, top:bottom, left:right]
    return resize(part, (view.resized_height, view.resized_width), antialias=antialias)


def spatial_views(
    height: int,
    width: int,
    *,
    short_side: int,
    crop: int,
    num_crops: int = 1,
    region: Region | None = None,
    resize_to: tuple[int, int] | None = None,
    crop_placement: CropPlacement = "centre_rounded_up",
    longer_side: LongerSide = "rounded_down",
) -> tuple[SpatialView, ...]:
    """Place the network's square crops: at the centre, or at both ends of the longer side and the centre.

    If the crops leave an odd number of pixels free, such as 5, they lie at one of

        0, 3, 5  `centre_rounded_up`: PySlowFast's `spatial_shift_crop_list`, pytorchvideo's `uniform_crop`
        0, 2, 5  `centre_rounded_to_even`: torchvision's `center_crop`, with 7 free pixels 0, 4, 7
        0, 2, 4  `steps_rounded_down`: video-nonlocal-net's `ClipTransformFlex`, MMAction2's `ThreeCrop`

    Args:
        height: Height of the frame.
        width: Width of the frame.
        short_side: Shorter side of the resized frame, in pixels.
        crop: Side of the crop, in pixels.
        num_crops: 1 for the centre; 3 for left, centre, right (top, centre, bottom of an upright frame).
        region: Part of the frame that replaces it: its shorter side is resized to `short_side`, and the crops lie
            inside it. None is the whole frame.
        resize_to: Height and width of the resized frame; None keeps the frame's aspect ratio.
        crop_placement: Rounding for an odd number of free pixels, see above.
        longer_side: Rounding of the longer side, as in `resized_size`.

    Returns:
        One view for each crop.

    Raises:
        UsageError: If a number is out of range.

    Example:
        >>> left, centre, right = spatial_views(240, 320, short_side=256, crop=224, num_crops=3)
        >>> left.left, centre.left, right.left
        (0, 59, 117)
    """
    if num_crops not in (1, 3):
        raise UsageError(f"{num_crops = } should be 1 or 3.")
    if not 1 <= crop <= short_side:
        raise UsageError(f"{crop = } should be at least 1 and at most {short_side = }.")
    box = None if region is None else region.pixels(height, width)
    top, left, bottom, right = box or (0, 0, height, width)
    resized_height, resized_width = resize_to or resized_size(bottom - top, right - left, short_side, longer_side)
    free_y, free_x = resized_height - crop, resized_width - crop
    if crop_placement == "steps_rounded_down":
        top, left = free_y // 2, free_x // 2
        bottom, right = 2 * top, 2 * left
    else:
        rounded = round if crop_placement == "centre_rounded_to_even" else math.ceil
        top, left = rounded(free_y / 2), rounded(free_x / 2)
        bottom, right = free_y, free_x
    if num_crops == 1:
        corners = [(top, left)]
    elif resized_height > resized_width:
        corners = [(0, left), (top, left), (bottom, left)]
    else:
        corners = [(top, 0), (top, left), (top, right)]
    return tuple(SpatialView(height, width, resized_height, resized_width, *corner, crop, box) for corner in corners)


def cut(frames_thwc: Tensor, view: SpatialView) -> Tensor:
    """Cut a view's crop out of frames resized to its size: uint8 (T, H', W', 3) -> (T, size, size, 3)."""
    size = tuple(frames_thwc.shape[1:3])
    if size != (view.resized_height, view.resized_width):
        raise UsageError(f"frames_thwc is {size}, should be {view.resized_height} x {view.resized_width}.")
    return frames_thwc[:, view.top : view.top + view.size, view.left : view.left + view.size]


def normalise(frames_thwc: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """Convert frames to a network's input.

    Args:
        frames_thwc: Frames, uint8 (..., T, H, W, 3).
        mean: Mean of each RGB channel, for values from 0 to 1.
        std: Standard deviation of each RGB channel.

    Returns:
        Input, float32 (..., 3, T, H, W), (x / 255 - mean) / std.
    """
    # (..., T, H, W, 3) -> (..., 3, T, H, W); x * a + b is one pass with (x / 255 - mean) / std folded into a and b.
    # Both are Python numbers: a tensor would be copied to the device, which waits for all earlier work there.
    channels = frames_thwc.movedim(-1, -4).to(torch.float32, memory_format=torch.contiguous_format)
    deviations = np.asarray(std, dtype=np.float32)
    scales, shifts = np.float32(1) / (np.float32(255) * deviations), -np.asarray(mean, dtype=np.float32) / deviations
    for channel, scale, shift in zip(channels.unbind(-4), scales.tolist(), shifts.tolist(), strict=True):
        channel.mul_(scale).add_(shift)
    return channels
