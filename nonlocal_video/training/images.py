"""Still pictures as clips: a camera that moves smoothly over each of them."""

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
from torch.utils.data import get_worker_info

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.files import Selection, find_files
from nonlocal_video.io import sha256_of
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.augment import Augmentation, ClipAugmenter, seeded
from nonlocal_video.training.data import LoadingStatistics, name_view
from nonlocal_video.training.objective import UNLABELLED
from nonlocal_video.video.limits import DecodeLimits
from nonlocal_video.video.transforms import normalise, resize, resized_size

FORMATS = ("JPEG", "PNG")
MAX_ASPECT = 4.0
"""Longer by shorter side; of a longer picture a clip would fill memory, and the network would see a small part."""
_PICTURES = Selection(pictures=True)
_WAVES = (1.0, 2.0, 3.0)
_FRAMES_AT_A_TIME = 8
_MAX_WORKERS = 256


@dataclass(frozen=True)
class CameraMotion:
    """How far the camera moves over a picture. It never sees beyond the picture's edge."""

    zoom: tuple[float, float] = (1.0, 1.5)
    """The whole picture is 1; from and to."""
    pan: float = 1.0
    """Share of the way to the edge that the view may move; there is room where it is zoomed or rotated."""
    rotation_degrees: float = 8.0
    """Farthest from upright."""

    def __post_init__(self) -> None:
        if not 1 <= self.zoom[0] <= self.zoom[1] <= 10:
            raise UsageError(f"zoom = {self.zoom} should be two numbers from 1 to 10, in order.")
        if not 0 <= self.pan <= 1:
            raise UsageError(f"pan = {self.pan} should be from 0 to 1.")
        if not 0 <= self.rotation_degrees <= 45:
            raise UsageError(f"rotation_degrees = {self.rotation_degrees} should be from 0 to 45.")


@dataclass(frozen=True)
class ImageRow:
    """One picture as it was found when it was checked."""

    path: str
    sha256: str | None = None
    width: int | None = None
    """Upright, as shown, in pixels."""
    height: int | None = None
    problem: str | None = None
    """Why it cannot be used: an error code and a sentence."""


def check_images(
    paths: Iterable[str | os.PathLike[str]],
    *,
    selection: Selection = _PICTURES,
    passed_over: PassedOver | None = None,
    limits: DecodeLimits | None = None,
) -> list[ImageRow]:
    """Decode every file once; a row for each, those that cannot be used included.

    Args:
        paths: Files, folders and patterns, as for `classify`.
        selection: Which files count; in a folder names of other kinds than pictures are passed over.
        passed_over: Counts those.
        limits: Their `max_bytes` and `max_pixels` hold.
    """
    rows = []
    for path in find_files(paths, selection=selection, passed_over=passed_over):
        try:
            picture = read_image(path, limits)
            height, width = picture.shape[:2]
            if max(height, width) > MAX_ASPECT * min(height, width):
                raise VideoError("too_large", f"{width} x {height} is too elongated; crop it to what matters.")
            rows.append(ImageRow(path, sha256_of(Path(path)), width, height))
        except VideoError as error:
            rows.append(ImageRow(path, problem=f"{error.code}: {error.message}"))
    return rows


def read_image(path: str | os.PathLike[str], limits: DecodeLimits | None = None) -> Tensor:
    """A JPEG or PNG, upright, uint8 (H, W, 3); what is transparent lies on white.

    Decoded in this process by Pillow, unlike videos: give it pictures that you would open yourself.

    Raises:
        VideoError: It is no such picture, too large, or damaged.
    """
    limits, name = limits or DecodeLimits(), os.path.basename(path)
    if not os.path.isfile(path):  # a pipe would keep us waiting for ever
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
    except Exception as error:  # Pillow lets through whatever its decoders run into
        raise VideoError("corrupt", f"{name}: {error}") from error


def pan_and_zoom(picture_hwc: Tensor, num_frames: int, size: tuple[int, int], motion: CameraMotion) -> Tensor:
    """What a camera that moves over a picture sees; it draws from torch's generator, see `seeded`.

    Zoom, rotation and place each follow three waves, of a half, one and one and a half periods a clip, with random
    phases and one random strength a clip. So they move without a jerk, now more and now less.

    Args:
        picture_hwc: uint8 (H, W, 3).
        num_frames: Length of the clip.
        size: Height and width of its frames, of about the picture's proportions.
        motion: Without zoom, pan and rotation every frame is the picture.

    Returns:
        uint8 (num_frames, height, width, 3).
    """
    height, width = size
    zoom_path, angle_path, x_path, y_path = _smooth_paths(4, num_frames)
    low, high = (math.log(zoom) for zoom in motion.zoom)
    zoom = torch.exp(low + (high - low) * (zoom_path + 1) / 2)
    angle = math.radians(motion.rotation_degrees) * angle_path
    cos, sin = angle.cos(), angle.sin()
    # A rotated frame reaches farther: half of it covers these shares of the picture's halves. It is made smaller until
    # they are at most 1, and what is left to 1 is room for the pan.
    reach_x, reach_y = cos + height / width * sin.abs(), cos + width / height * sin.abs()
    scale = 1 / (zoom * torch.maximum(reach_x, reach_y))
    centre_x = motion.pan * x_path * (1 - scale * reach_x)
    centre_y = motion.pan * y_path * (1 - scale * reach_y)
    rows = [scale * cos, -scale * sin * height / width, centre_x, scale * sin * width / height, scale * cos, centre_y]
    theta = torch.stack(rows, dim=1).view(num_frames, 2, 3)
    picture = picture_hwc.permute(2, 0, 1)[None].float()  # (1, 3, H, W)
    seen = torch.empty(num_frames, height, width, 3, dtype=torch.uint8)
    for first in range(0, num_frames, _FRAMES_AT_A_TIME):
        some = theta[first : first + _FRAMES_AT_A_TIME]
        grid = F.affine_grid(some, [len(some), 3, height, width], align_corners=False)
        frames = F.grid_sample(
            picture.expand(len(some), -1, -1, -1), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        seen[first : first + _FRAMES_AT_A_TIME] = frames.round().permute(0, 2, 3, 1).to(torch.uint8)
    return seen


class ImageDataset:
    """A clip of each picture, float32 (3, T, S, S) as the network takes it, and `UNLABELLED` for its class.

    A camera moves over the picture, and then the clip is changed as every other (`ClipAugmenter`). It depends on
    (seed, epoch, place) alone.

    Attributes:
        labels: None.
        classes: (pictures,) all `UNLABELLED`.
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
        """Nothing is read yet.

        Raises:
            UsageError: There is no picture, or one cannot be used.
        """
        if not rows:
            raise UsageError("rows is empty: there is no picture to train on.")
        for row in rows:
            if row.problem is not None:
                raise UsageError(f"{row.path!r} cannot be used: {row.problem}. Leave it out.")
        self.rows, self.spec, self.motion, self.seed = tuple(rows), spec, motion, seed
        self.classes = torch.full((len(rows),), UNLABELLED)
        self._augmenter, self._limits = ClipAugmenter(augmentation, spec.crop), limits
        self._digest = hashlib.sha256(repr((spec, motion)).encode()).hexdigest()[:16]
        # In shared memory, as in `ClipDataset`; each worker counts pictures and seconds in its own row.
        self._counts = torch.zeros(_MAX_WORKERS + 1, 3, dtype=torch.float64).share_memory_()

    def __len__(self) -> int:
        return len(self.rows)

    def view(self, place: int, epoch: int) -> tuple[Tensor, int]:
        """One clip, as the network takes it; that of another epoch is another one.

        Raises:
            VideoError: As for `pixels`.
        """
        frames, label = self.pixels(place, epoch)
        return normalise(frames, self.spec.mean, self.spec.std), label

    def pixels(self, place: int, epoch: int) -> tuple[Tensor, int]:
        """The view before it is normalised, uint8 (T, S, S, 3).

        Raises:
            VideoError: A picture that could be read when it was checked cannot be read now.
        """
        row, started = self.rows[place], time.perf_counter()
        try:
            picture = read_image(row.path, self._limits)
            if picture.shape[:2] != (row.height, row.width):
                raise VideoError("corrupt", "it is another picture than the one that was checked.")
        except VideoError as error:
            message = f"{row.path}: {error.message} It could be read when it was checked; check the pictures again."
            raise VideoError(error.code, message) from error
        height, width = picture.shape[:2]
        # As many pixels as the closest view can show, if the picture has them.
        most = math.ceil(self.spec.short_side * self.motion.zoom[1])
        short_side = max(self.spec.short_side, min(height, width, most))
        (picture,) = resize(picture[None], resized_size(height, width, short_side))
        decoded = time.perf_counter()
        with seeded(self.seed, epoch, place):
            size = resized_size(height, width, self.spec.short_side, self.spec.longer_side)
            frames = self._augmenter(pan_and_zoom(picture, self.spec.num_frames, size, self.motion), "")
        worker = get_worker_info()
        counts = self._counts[0 if worker is None else 1 + worker.id % _MAX_WORKERS]
        counts += torch.tensor([1, decoded - started, time.perf_counter() - decoded])
        return frames, UNLABELLED

    def view_name(self, place: int, epoch: int) -> str:
        """What tells a picture's view of an epoch from all others, see `name_view`."""
        augmentation = self._augmenter.augmentation
        return name_view(self.rows[place].sha256, self._digest, self.seed, epoch, place, augmentation=augmentation)

    @property
    def statistics(self) -> LoadingStatistics:
        """Statistics of all images since the data set was made; decoding includes the resize."""
        clips, decode_seconds, transform_seconds = self._counts.sum(dim=0).tolist()
        return LoadingStatistics(int(clips), 0, 0, decode_seconds, 0.0, transform_seconds)

    def close(self) -> None:
        """Nothing to end: pictures are decoded without a child."""


def _smooth_paths(count: int, num_frames: int) -> Tensor:
    """(count, num_frames) in [-1, 1]; from the clip's beginning (0) to its end (1) the slope is at most 5.2."""
    waves = torch.tensor(_WAVES)
    phases = 2 * math.pi * torch.rand(count, len(waves), 1)
    moments = torch.linspace(0, 1, num_frames)
    heights = torch.sin(math.pi * waves[:, None] * moments + phases) / waves[:, None]  # (count, waves, frames)
    return torch.rand(()) * heights.sum(dim=1) / (1 / waves).sum()
