"""Still images as training clips, by a smooth camera motion over each image."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.files import Selection, find_files
from nonlocal_video.io import sha256_of
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.augment import Augmentation, ClipAugmenter, seeded
from nonlocal_video.training.data import name_view
from nonlocal_video.training.loading_statistics import LoadingCounter, LoadingStatistics
from nonlocal_video.training.objective import UNLABELLED
from nonlocal_video.video.limits import DecodeLimits
from nonlocal_video.video.transforms import normalise, resize, resized_size

FORMATS = ("JPEG", "PNG")
MAX_ASPECT = 4.0
"""Largest aspect ratio (longer by shorter side); clips of more elongated images would take too much memory."""
_IMAGES = Selection(pictures=True)
_WAVES = (1.0, 2.0, 3.0)
_FRAMES_AT_A_TIME = 8


@dataclass(frozen=True)
class CameraMotion:
    """Range of the camera motion over an image. The view never leaves the image."""

    zoom: tuple[float, float] = (1.0, 1.5)
    """Smallest and largest zoom factor; 1 shows the whole image."""
    pan: float = 1.0
    """Largest shift, as a share of the way to the edge; zoom and rotation leave room for it."""
    rotation_degrees: float = 8.0
    """Largest rotation, in degrees."""

    def __post_init__(self) -> None:
        if not 1 <= self.zoom[0] <= self.zoom[1] <= 10:
            raise UsageError(f"zoom = {self.zoom} should be two numbers from 1 to 10, in order.")
        if not 0 <= self.pan <= 1:
            raise UsageError(f"pan = {self.pan} should be from 0 to 1.")
        if not 0 <= self.rotation_degrees <= 45:
            raise UsageError(f"rotation_degrees = {self.rotation_degrees} should be from 0 to 45.")


@dataclass(frozen=True)
class ImageRow:
    """Result of checking one image."""

    path: str
    """Path of the file."""
    sha256: str | None = None
    """SHA-256 of the file's bytes."""
    width: int | None = None
    """Width in pixels, after EXIF rotation."""
    height: int | None = None
    """Height in pixels, after EXIF rotation."""
    problem: str | None = None
    """Reason why the image cannot be used: error code and message; None if it can."""


def check_images(
    paths: Iterable[str | os.PathLike[str]],
    *,
    selection: Selection = _IMAGES,
    passed_over: PassedOver | None = None,
    limits: DecodeLimits | None = None,
) -> list[ImageRow]:
    """Decode every image once; return a row for each, including unusable ones.

    Args:
        paths: Files, folders and patterns, as for `classify`.
        selection: Which files to take; in folders, files that are not images by name are skipped.
        passed_over: Counts the skipped files.
        limits: Limits; `max_bytes` and `max_pixels` apply.
    """
    rows = []
    for path in find_files(paths, selection=selection, passed_over=passed_over):
        try:
            image = read_image(path, limits)
            height, width = image.shape[:2]
            if max(height, width) > MAX_ASPECT * min(height, width):
                raise VideoError("too_large", f"{width} x {height} is too elongated; crop it.")
            rows.append(ImageRow(path, sha256_of(Path(path)), width, height))
        except VideoError as error:
            rows.append(ImageRow(path, problem=f"{error.code}: {error.message}"))
    return rows


def read_image(path: str | os.PathLike[str], limits: DecodeLimits | None = None) -> Tensor:
    """Read a JPEG or PNG, with EXIF rotation applied and transparency on white: uint8 (H, W, 3).

    Unlike videos, images are decoded in this process, by Pillow: use images that you trust.

    Raises:
        VideoError: The file is missing, not a JPEG or PNG, too large, or damaged.
    """
    limits, name = limits or DecodeLimits(), os.path.basename(path)
    if not os.path.isfile(path):  # a pipe would block forever
        raise VideoError("not_found", f"{name}: there is no such file.")
    if os.path.getsize(path) > limits.max_bytes:
        raise VideoError("too_large", f"{name}: it has more than {limits.max_bytes} bytes.")
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise VideoError("too_large", f"{name}: {width} x {height} has more than {limits.max_pixels} pixels.")
            if image.mode.startswith(("I", "F")):
                raise VideoError("unsupported_codec", f"{name}: it has 16 bits a channel; save it with 8.")
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            return torch.from_numpy(np.array(upright.convert("RGB")))
    except VideoError:
        raise
    except Image.DecompressionBombError as error:
        raise VideoError("too_large", f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise VideoError("unsupported_codec", f"{name}: it is neither a JPEG nor a PNG.") from error
    except Exception as error:  # Pillow passes on any exception of its decoders
        raise VideoError("corrupt", f"{name}: {error}") from error


def pan_and_zoom(image_hwc: Tensor, num_frames: int, size: tuple[int, int], motion: CameraMotion) -> Tensor:
    """Return a clip of a camera moving over an image; it draws from torch's generator, see `seeded`.

    Zoom, rotation and position each follow a sum of three sine waves with half a period, one, and one and a half per
    clip, random phases and one random amplitude per clip, so that the motion is smooth.

    Args:
        image_hwc: Image, uint8 (H, W, 3).
        num_frames: Number of frames of the clip.
        size: Height and width of the frames, with about the aspect ratio of the image.
        motion: Range of the motion; without zoom, pan and rotation every frame is the image.

    Returns:
        uint8 (num_frames, height, width, 3).
    """
    height, width = size
    zoom_path, angle_path, x_path, y_path = _smooth_paths(4, num_frames)
    low, high = (math.log(zoom) for zoom in motion.zoom)
    zoom = torch.exp(low + (high - low) * (zoom_path + 1) / 2)
    angle = math.radians(motion.rotation_degrees) * angle_path
    cos, sin = angle.cos(), angle.sin()
    # Half of a rotated frame spans these shares of half the image. The frame is scaled until they are at most 1; what
    # remains up to 1 is room for the pan.
    reach_x, reach_y = cos + height / width * sin.abs(), cos + width / height * sin.abs()
    scale = 1 / (zoom * torch.maximum(reach_x, reach_y))
    centre_x = motion.pan * x_path * (1 - scale * reach_x)
    centre_y = motion.pan * y_path * (1 - scale * reach_y)
    rows = [scale * cos, -scale * sin * height / width, centre_x, scale * sin * width / height, scale * cos, centre_y]
    theta = torch.stack(rows, dim=1).view(num_frames, 2, 3)
    image = image_hwc.permute(2, 0, 1)[None].float()  # (1, 3, H, W)
    frames_thwc = torch.empty(num_frames, height, width, 3, dtype=torch.uint8)
    for first in range(0, num_frames, _FRAMES_AT_A_TIME):
        chunk = theta[first : first + _FRAMES_AT_A_TIME]
        grid = F.affine_grid(chunk, [len(chunk), 3, height, width], align_corners=False)
        frames = F.grid_sample(
            image.expand(len(chunk), -1, -1, -1), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        frames_thwc[first : first + _FRAMES_AT_A_TIME] = frames.round().permute(0, 2, 3, 1).to(torch.uint8)
    return frames_thwc


class ImageDataset:
    """Data set of clips made of images: float32 (3, T, S, S), with the class `UNLABELLED`.

    A camera moves over each image, and `ClipAugmenter` augments the clip. The result depends on (seed, epoch, index)
    alone.

    Attributes:
        labels: Empty, as images have no labels.
        classes: (images,) all `UNLABELLED`.
    """

    labels: tuple[str, ...] = ()

    def __init__(
        self,
        rows: Sequence[ImageRow],
        spec: InputSpec,
        *,
        augmentation: Augmentation,
        motion: CameraMotion = CameraMotion(),
        seed: int = 0,
        limits: DecodeLimits | None = None,
    ) -> None:
        """Prepare the data set; no image is read yet.

        Args:
            rows: Usable images, see `check_images`.
            spec: Input of the network.
            augmentation: Strength of the augmentation.
            motion: Range of the camera motion.
            seed: Seed of the random views.
            limits: Limits as for `read_image`.

        Raises:
            UsageError: There is no image, or one cannot be used.
        """
        if not rows:
            raise UsageError("rows is empty: there is no image to train on.")
        for row in rows:
            if row.problem is not None:
                raise UsageError(f"{row.path!r} cannot be used: {row.problem}. Leave it out.")
        self.rows, self.spec, self.motion, self.seed = tuple(rows), spec, motion, seed
        self.classes = torch.full((len(rows),), UNLABELLED)
        self._augmenter, self._limits = ClipAugmenter(augmentation, spec.crop), limits
        self._digest = hashlib.sha256(repr((spec, motion)).encode()).hexdigest()[:16]
        self._counts = LoadingCounter()

    def __len__(self) -> int:
        return len(self.rows)

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return the clip of an image in an epoch, normalised, and `UNLABELLED`.

        Raises:
            VideoError: As for `pixels`.
        """
        frames, label = self.pixels(index, epoch)
        return normalise(frames, self.spec.mean, self.spec.std), label

    def pixels(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return the clip before normalisation, uint8 (T, S, S, 3), and `UNLABELLED`.

        Raises:
            VideoError: An image that was readable when checked cannot be read now.
        """
        row, started = self.rows[index], time.perf_counter()
        try:
            image = read_image(row.path, self._limits)
            if image.shape[:2] != (row.height, row.width):
                raise VideoError("corrupt", "the image has changed since it was checked.")
        except VideoError as error:
            message = f"{row.path}: {error.message} It was readable when it was checked; check the images again."
            raise VideoError(error.code, message) from error
        height, width = image.shape[:2]
        # As many pixels as the closest zoom can show, if the image has them.
        max_short_side = math.ceil(self.spec.short_side * self.motion.zoom[1])
        short_side = max(self.spec.short_side, min(height, width, max_short_side))
        (image,) = resize(image[None], resized_size(height, width, short_side))
        decoded = time.perf_counter()
        with seeded(self.seed, epoch, index):
            size = resized_size(height, width, self.spec.short_side, self.spec.longer_side)
            frames = self._augmenter(pan_and_zoom(image, self.spec.num_frames, size, self.motion), "")
        self._counts.add(clips=1, decode_seconds=decoded - started, transform_seconds=time.perf_counter() - decoded)
        return frames, UNLABELLED

    def view_name(self, index: int, epoch: int) -> str:
        """Return a unique name for the view of an image in an epoch, see `name_view`."""
        augmentation = self._augmenter.augmentation
        return name_view(self.rows[index].sha256, self._digest, self.seed, epoch, index, augmentation=augmentation)

    @property
    def statistics(self) -> LoadingStatistics:
        """Loading statistics since the data set was made, over all workers; decoding includes the resize."""
        return self._counts.sums()

    def close(self) -> None:
        """Do nothing: images are decoded without a child process."""


def _smooth_paths(count: int, num_frames: int) -> Tensor:
    """Return random paths, (count, num_frames) in [-1, 1], with a slope of at most 5.2 per clip length."""
    waves = torch.tensor(_WAVES)
    phases = 2 * math.pi * torch.rand(count, len(waves), 1)
    times = torch.linspace(0, 1, num_frames)
    values = torch.sin(math.pi * waves[:, None] * times + phases) / waves[:, None]  # (count, waves, frames)
    return torch.rand(()) * values.sum(dim=1) / (1 / waves).sum()
