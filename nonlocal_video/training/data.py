"""Data set of checked clips, for training and validation."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nonlocal_video.datasets.check import chunk_frames, local_file, part_of
from nonlocal_video.datasets.manifest import ManifestRow
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.fragment import split_part
from nonlocal_video.inference.preprocessing import crops_of, views_of
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.augment import Augmentation, ClipAugmenter, seeded
from nonlocal_video.training.disk_cache import DiskCache
from nonlocal_video.training.loading_statistics import LoadingCounter, LoadingStatistics
from nonlocal_video.video.decode import DecoderChoice, VideoReader
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.limits import DecodeLimits
from nonlocal_video.video.region import Region
from nonlocal_video.video.transforms import SpatialView, cut, normalise, resize

GRID = 2
"""Grid times per step of the model's rate; random views use the nearest. Never more than the clip's frames."""


class ClipDataset:
    """Data set of one view per clip, float32 (3, T, S, S), with the clip's class.

    With an augmentation, the view is random and depends on (seed, epoch, index) alone: not on the number of workers,
    the order of calls, or the cache. Without one, it is the view of `classify`.

    Random views use frames at the model's short side, at times of a fixed grid with `GRID` times per step of the
    model's rate. So a cached clip has few frames, and gives the same pixels as one that is decoded again. A clip that
    is shorter than a random view fills it like the middle view, see `InputSpec.short_clips`.

    Each process that loads clips starts one decoding process on demand.

    Attributes:
        classes: (clips,) class of each clip.
    """

    def __init__(
        self,
        rows: Sequence[ManifestRow],
        labels: Sequence[str],
        spec: InputSpec,
        *,
        augmentation: Augmentation | None = None,
        region: Region | None = None,
        seed: int = 0,
        cache: DiskCache | None = None,
        decoder: DecoderChoice = "auto",
        limits: DecodeLimits | None = None,
    ) -> None:
        """Prepare the data set; no clip is read yet.

        Args:
            rows: Usable clips of a manifest.
            labels: Classes of the network, in the order of its outputs.
            spec: Input of the network.
            augmentation: Strength of the augmentation; None for validation.
            region: Part of the frame that replaces it, as for `classify`; None is the whole frame.
            seed: Seed of the random views.
            cache: Cache of decoded, resized frames.
            decoder: As in `VideoReader`.
            limits: As in `VideoReader`.

        Raises:
            UsageError: There is no clip, one cannot be used, or its class is not in `labels`.
        """
        if not rows:
            raise UsageError("rows is empty: there is no clip to train on.")
        index_of = {label: index for index, label in enumerate(labels)}
        for row in rows:
            if not row.usable:
                raise UsageError(f"{row.path!r} cannot be used: {row.problem}. Leave it out.")
            if row.label not in index_of:
                raise UsageError(f"{row.path!r} has the class {row.label!r}; the network has {', '.join(labels)}.")
        if augmentation is not None:
            augmentation.check_classes(tuple(labels))
        self.rows, self.labels, self.spec, self.region, self.seed = tuple(rows), tuple(labels), spec, region, seed
        self.classes = torch.tensor([index_of[row.label] for row in rows])
        self.cache = cache
        self._augmenter = ClipAugmenter(augmentation, spec.crop) if augmentation is not None else None
        self._decoder, self._limits = decoder, limits
        self._digest = hashlib.sha256(repr((spec, decoder, GRID, region)).encode()).hexdigest()[:16]
        self._reader: VideoReader | None = None
        self._counts = LoadingCounter()

    @property
    def statistics(self) -> LoadingStatistics:
        """Loading statistics since the data set was made, over all workers."""
        return self._counts.sums()

    def __len__(self) -> int:
        return len(self.rows)

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return the normalised view of a clip in an epoch, and the clip's class.

        Raises:
            VideoError: As for `pixels`.
        """
        frames, label = self.pixels(index, epoch)
        return normalise(frames, self.spec.mean, self.spec.std), label

    def pixels(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return the view before normalisation, uint8 (T, S, S, 3), and the clip's class.

        Raises:
            VideoError: A clip that was readable when checked cannot be read now.
        """
        row = self.rows[index]
        try:
            if self._augmenter is None:
                frames = self._middle_view(row)
            else:
                with seeded(self.seed, epoch, index):
                    frames = self._random_view(row, self._augmenter)
        except VideoError as error:
            message = f"{row.path}: {error.message} It was readable when it was checked; check the clips again."
            raise VideoError(error.code, message) from error
        self._counts.add(clips=1)
        return frames, int(self.classes[index])

    def view_name(self, index: int, epoch: int) -> str:
        """Return a unique name for the view of a clip in an epoch, see `name_view`."""
        row = self.rows[index]
        if self._augmenter is None:
            return name_view(row.sha256, self._digest)
        augmentation = self._augmenter.augmentation
        mirrored = row.label not in augmentation.left_right_classes
        return name_view(row.sha256, self._digest, mirrored, self.seed, epoch, index, augmentation=augmentation)

    def close(self) -> None:
        """End the decoding process; it is started again on demand."""
        if self._reader is not None:
            self._reader.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}  # a child process serves the process that started it

    def _middle_view(self, row: ManifestRow) -> Tensor:
        """Return the middle view, centre crop, uint8 (T, S, S, 3), as from `ClipLoader`."""
        name = f"{row.sha256}-middle-{self._digest}"
        cached = self._from_cache(name, None)
        if cached is not None:
            return cached
        info = info_of(row)
        (view,) = views_of(info, self.spec, ClipRequest())
        frames, shown = self._decode(row, np.asarray(view.times_seconds))
        seen = cut(frames, self._place(row))[shown]
        self._to_cache(name, seen)
        return seen

    def _random_view(self, row: ManifestRow, augmenter: ClipAugmenter) -> Tensor:
        """Return a random view, uint8 (T, S, S, 3)."""
        info = info_of(row)
        speed, start = augmenter.draw_time()
        rate = self.spec.rate_in(info.fps)
        grid = _grid(info, rate)
        wanted = _grid_indices(info, grid, self.spec, rate / speed, start)
        name = f"{row.sha256}-grid-{self._digest}"
        frames = self._from_cache(name, wanted)
        if frames is None:
            place = self._place(row)
            if self._has_room(len(grid) * place.resized_height * place.resized_width * 3):
                every, shown = self._decode(row, grid)
                self._to_cache(name, every[shown])
                frames = every[shown[wanted]]
            else:
                some, shown = self._decode(row, grid[wanted])
                frames = some[shown]
        with self._counts.timed("transform_seconds"):
            return augmenter(frames, row.label)

    def _place(self, row: ManifestRow) -> SpatialView:
        (place,) = crops_of(info_of(row), self.spec, region=self.region)
        return place

    def _decode(self, row: ManifestRow, times: NDArray[np.float64]) -> tuple[Tensor, NDArray[np.int64]]:
        """Return distinct frames, resized as a view, uint8 (K, H, W, 3), and their index at each time."""
        started = time.perf_counter()
        if self._reader is None:
            self._reader = VideoReader(decoder=self._decoder, limits=self._limits)
        place = self._place(row)
        size = place.resized_height, place.resized_width
        video, part = split_part(row.path)
        with local_file(video, self._reader) as path:
            found = self._reader.probe(path)  # the child remembers it for the stream
            if part is not None:
                found = part_of(found, video, *part)
            if (found.num_frames, found.height, found.width) != (row.num_frames, row.height, row.width):
                raise VideoError("corrupt", "the video has changed since it was checked.")
            times = found.start_seconds + times  # of the file, not of its pictures
            num, box = chunk_frames(found), place.region_box  # only the region leaves the decoding child
            with self._reader.stream(path, times.tolist(), chunk_frames=num, box=box) as stream:
                frames = [
                    resize(torch.from_numpy(chunk.frames_thwc), size, antialias=self.spec.antialias) for chunk in stream
                ]
        self._counts.add(decode_seconds=time.perf_counter() - started)
        return torch.cat(frames), stream.frame_of_time

    def _from_cache(self, name: str, indices: NDArray[np.int64] | None) -> Tensor | None:
        if self.cache is None:
            return None
        with self._counts.timed("cache_seconds"):
            frames = self.cache.frames(name, indices)
        if frames is None:
            return None
        self._counts.add(from_cache=1)
        return torch.from_numpy(frames)

    def _has_room(self, num_bytes: int) -> bool:
        return self.cache is not None and self.cache.has_room(num_bytes)

    def _to_cache(self, name: str, frames: Tensor) -> None:
        if self.cache is None or not self._has_room(frames.nbytes):
            return
        with self._counts.timed("cache_seconds"):
            self._counts.add(put_in_cache=self.cache.put(name, frames.numpy()))


def name_view(*depends: object, augmentation: Augmentation | None = None) -> str:
    """Return a unique name for a view, 64 hex digits.

    Args:
        depends: Everything that the view depends on; their `repr` is hashed.
        augmentation: Augmentation of the view, if any.

    Raises:
        UsageError: Clips are mixed, so the network's input is not a view of one clip.
    """
    if augmentation is not None and (augmentation.mixup or augmentation.cutmix):
        raise UsageError(
            "With mixup or cutmix, teacher outputs cannot be cached per clip; set both to 0, or teacher_views = 0."
        )
    return hashlib.sha256(repr((depends, augmentation)).encode()).hexdigest()


def info_of(row: ManifestRow) -> VideoInfo:
    """Return the information from the check, to plan a view without a probe; times count from the first frame."""
    # Every usable row has them.
    assert row.width is not None
    assert row.height is not None
    assert row.num_frames is not None
    assert row.fps is not None
    assert row.duration_seconds is not None
    return VideoInfo(
        container="unknown",
        codec="unknown",
        width=row.width,
        height=row.height,
        rotation_degrees=0,
        num_frames=row.num_frames,
        fps=row.fps,
        start_seconds=0.0,
        duration_seconds=row.duration_seconds,
        has_edit_list=False,
        decoder="pyav",
    )


def _grid(info: VideoInfo, rate: float) -> NDArray[np.float64]:
    """Return the grid of times for random views, in seconds: the middles of equal steps."""
    step = 1 / min(GRID * rate, info.fps)
    count = max(1, math.ceil(info.duration_seconds / step - 1e-6))
    return np.minimum((np.arange(count) + 0.5) * step, info.duration_seconds)


def _grid_indices(
    info: VideoInfo, grid: NDArray[np.float64], spec: InputSpec, rate: float, start: float
) -> NDArray[np.int64]:
    """Return the grid indices of a view's frames, (num_frames,); `start` moves the view from 0 to 1."""
    span, duration = spec.num_frames / rate, info.duration_seconds
    steps = (np.arange(spec.num_frames) + 0.5) / rate
    if span - duration <= 0.001:  # as `plan_views`
        times = steps + start * max(0.0, duration - span)
    elif spec.short_clips == "loop":  # the middle start is the clip's beginning
        times = (steps + (start - 0.5) * duration) % duration
    elif spec.short_clips == "spread":
        times = steps * duration / span
    else:
        times = steps  # what is after the end is the grid's last moment
    step = grid[0] * 2 if len(grid) > 1 else duration
    # A moment on the border of two steps belongs to the later one, whatever the rounding of its time.
    return np.clip((times / step + 1e-6).astype(np.int64), 0, len(grid) - 1)
