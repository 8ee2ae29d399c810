"""Disk cache of what frozen layers or a teacher's student need of a fixed set of views: features or clips."""

from __future__ import annotations

import logging
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.io import refuse_link
from nonlocal_video.models.folding import fold_batch_norms
from nonlocal_video.models.inception3d import InceptionI3D
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.training.loading import BatchLoader, EveryClip, TrainingData, ViewKey, as_input, loaded
from nonlocal_video.training.objective import Batch

_log = logging.getLogger(__name__)


class FeatureCache:
    """Data set of cached tensors, float32 (C, T', H', W'), one for each view, with the clip's class.

    Each clip has `num_views` random views, which epochs use in turn. `compute` fills the cache, and continues after an
    interruption.

    Attributes:
        num_views: Number of views of each clip.
    """

    def __init__(self, data: TrainingData, folder: Path, *, num_views: int, shape: tuple[int, ...]) -> None:
        """Open or create the files, in every process of a run.

        Args:
            data: Data set of the clips.
            folder: Folder for this cache alone.
            num_views: Number of views of each clip, at least 1.
            shape: Shape of the tensor cached for one view.

        Raises:
            OutputError: The files cannot be written.
        """
        self.num_views = num_views
        self._data, self._folder = data, folder
        self._shape = (num_views, len(data), *shape)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._tensors = self._open("views", np.float32, self._shape)
            self._classes = self._open("classes", np.int64, self._shape[:2])
            self._checksums = self._open("checksums", np.uint64, self._shape[:2])  # 0 where nothing is cached yet
        except OSError as error:
            raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror}. Make room for it.") from error

    def _checksum(self, clip: int, view: int) -> int:
        return _checksum(self._tensors[view, clip], int(self._classes[view, clip]), clip, view)

    def _drop_damaged(self, keys: Iterable[ViewKey]) -> None:
        damaged = 0
        for clip, view in keys:
            if self._checksums[view, clip] not in (0, self._checksum(clip, view)):
                self._checksums[view, clip] = 0
                damaged += 1
        if damaged:
            _log.warning("%d cached views in %r are damaged; they are recomputed.", damaged, str(self._folder))

    def _open(self, name: str, kind: type, shape: tuple[int, ...]) -> np.memmap:
        path = self._folder / name
        size = math.prod(shape) * np.dtype(kind).itemsize
        refuse_link(path, hard=True)
        with open(path, "ab") as file:
            if file.tell() != size:
                file.truncate(size)  # zeros: nothing is cached
            if hasattr(os, "posix_fallocate"):  # otherwise a full disk would end the process by SIGBUS later
                os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(path, dtype=kind, mode="r+", shape=shape)

    def compute(
        self,
        make: Callable[[Batch], Tensor],
        fabric: Fabric,
        *,
        batch_size: int,
        workers: int,
        on_clip: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Compute the missing tensors; each process computes its share.

        Args:
            make: Returns the tensors to cache, (N, *shape), for a batch whose epoch is the index of the view.
            fabric: Provides device and precision.
            batch_size: Views per forward pass.
            workers: Number of data loading processes.
            on_clip: Called with the number of views done and of all views in this process.

        Raises:
            VideoError: A clip cannot be read.
        """
        share = {"rank": fabric.global_rank, "world_size": fabric.world_size}
        all_batches = [
            batch
            for view in range(self.num_views)
            for batch in EveryClip(self._shape[1], batch_size, epoch=view, **share)
        ]
        self._drop_damaged(key for batch in all_batches for key in batch)
        missing = [batch for batch in all_batches if not all(self._checksums[epoch, clip] for clip, epoch in batch)]
        total = sum(map(len, all_batches))
        done = total - sum(map(len, missing))
        if missing:
            loader = BatchLoader(self._data, missing, workers=workers, pin_memory=False)
            try:
                for keys, batch in zip(missing, loader, strict=True):
                    clips, classes, clip_indices = loaded(batch)
                    view = keys[0].epoch
                    indices = clip_indices.numpy()  # a tensor with one element would index like an integer
                    with torch.no_grad(), fabric.autocast():
                        found = make(Batch(as_input(clips, loader, fabric.device), torch.empty(0), clip_indices, view))
                    self._tensors[view, indices] = found.float().cpu().numpy()
                    self._classes[view, indices] = classes.numpy()
                    for clip in indices:  # last: a kill in between costs one batch
                        self._checksums[view, clip] = self._checksum(clip, view)
                    done += len(indices)
                    on_clip(done, total)
            finally:
                loader.close()
            for tensor in (self._tensors, self._classes, self._checksums):
                tensor.flush()
        self._data.close()
        fabric.barrier()

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return the cached tensor of a clip's view, and the clip's class.

        Raises:
            OutputError: The tensor is damaged; the next start of the run recomputes it.
        """
        view = epoch % self.num_views
        tensor: NDArray[np.float32] = np.array(self._tensors[view, index])
        label = int(self._classes[view, index])
        if self._checksums[view, index] != _checksum(tensor, label, index, view):
            raise OutputError(
                f"View {view} of clip {index} in {str(self._folder)!r} is damaged. The same command with --resume "
                f"recomputes it."
            )
        return torch.from_numpy(tensor), label

    def __len__(self) -> int:
        return self._shape[1]

    def close(self) -> None:
        """Close the data set of the clips."""
        self._data.close()


def _checksum(tensor: NDArray[np.float32], label: int, clip: int, view: int) -> int:
    """Return the checksum of a cached view, its class and its index; never 0."""
    about = struct.pack("<qqq", label, clip, view)
    return 1 << 32 | zlib.crc32(about, zlib.crc32(np.ascontiguousarray(tensor).data))


def frozen_part(network: Video3DResNet | InceptionI3D, layer: str, device: torch.device) -> Callable[[Batch], Tensor]:
    """Return a function for `FeatureCache.compute` that runs the network up to its last frozen layer.

    It uses a copy of the network with folded batch norms.
    """
    folded = fold_batch_norms(network.eval()).to(device).to(memory_format=torch.channels_last_3d)
    assert isinstance(folded, (Video3DResNet, InceptionI3D))
    return lambda batch: folded.forward_to(layer, batch.clips.contiguous(memory_format=torch.channels_last_3d))


def feature_shape(
    network: Video3DResNet | InceptionI3D, layer: str, view_shape: tuple[int, ...], device: torch.device
) -> tuple[int, ...]:
    """Return the shape (C, T', H', W') of a layer's output for one view (3, T, S, S)."""
    with torch.no_grad():
        return tuple(network.eval().forward_to(layer, torch.zeros(1, *view_shape, device=device)).shape[1:])


def bytes_needed(shape: tuple[int, ...], num_views: int) -> int:
    """Return the size of a cache in bytes, for `num_views` views in total."""
    return 4 * math.prod(shape) * num_views


def check_room(shape: tuple[int, ...], *, num_clips: int, num_views: int, num_validation: int, max_bytes: int) -> None:
    """Check that the features of all training and validation views fit into the cache.

    Raises:
        UsageError: They take more than `max_bytes`.
    """
    needed = bytes_needed(shape, num_views * num_clips + num_validation)
    if needed > max_bytes:
        raise UsageError(
            f"The features of {num_views} views of {num_clips} training clips and of {num_validation} validation clips "
            f"take {needed / 2**30:.1f} GiB, above the cache's {max_bytes / 2**30:.1f}. Allow more with --set "
            f"cache_gib=..., use fewer views with --set frozen_views=..., or no cache with --set frozen_views=0."
        )
