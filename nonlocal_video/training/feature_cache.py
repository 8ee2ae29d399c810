"""What does not learn sees each view once, be it a frozen part or a teacher; what it leaves to learn from is kept."""

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
from nonlocal_video.training.loading import BatchLoader, EveryClip, TrainingData, View, as_input, loaded
from nonlocal_video.training.objective import Batch

_log = logging.getLogger(__name__)


class FeatureCache:
    """Stands in for a dataset: what was made of each view, float32 (C, T', H', W'), and the class.

    Of each clip there are `num_views` random views, and epochs go round them. They are made by
    `compute`, which continues where an earlier call was interrupted.

    Attributes:
        num_views: Views of each clip.
    """

    def __init__(self, data: TrainingData, folder: Path, *, num_views: int, shape: tuple[int, ...]) -> None:
        """Open or make the files; every process of a run does.

        Args:
            data: The clips.
            folder: For these alone.
            num_views: At least 1.
            shape: Of what is kept of one view.
        """
        self.num_views = num_views
        self._data, self._folder = data, folder
        self._shape = (num_views, len(data), *shape)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._kept = self._open("views", np.float32, self._shape)
            self._classes = self._open("classes", np.int64, self._shape[:2])
            self._sums = self._open("checksums", np.uint64, self._shape[:2])  # 0 where nothing is kept yet
        except OSError as error:
            raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror}. Make room for it.") from error

    def _checksum(self, place: int, number: int) -> int:
        return _checksum(self._kept[number, place], int(self._classes[number, place]), place, number)

    def _forget_damaged(self, views: Iterable[View]) -> None:
        damaged = 0
        for place, number in views:
            if self._sums[number, place] not in (0, self._checksum(place, number)):
                self._sums[number, place] = 0
                damaged += 1
        if damaged:
            _log.warning("%d kept views in %r are damaged; they are made again.", damaged, str(self._folder))

    def _open(self, name: str, kind: type, shape: tuple[int, ...]) -> np.memmap:
        path = self._folder / name
        size = math.prod(shape) * np.dtype(kind).itemsize
        refuse_link(path, hard=True)
        with open(path, "ab") as file:
            if file.tell() != size:
                file.truncate(size)  # zeros: nothing is done
            if hasattr(os, "posix_fallocate"):  # else a disk that is full later ends the process by SIGBUS
                os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(path, dtype=kind, mode="r+", shape=shape)

    def compute(
        self,
        make: Callable[[Batch], Tensor],
        fabric: Fabric,
        *,
        batch_size: int,
        workers: int,
        on_clip: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        """Fill in what is missing: every process its share.

        Args:
            make: A batch of views, with the number of the view as its epoch -> what is kept, (N, *shape).
            fabric: Says where and in which precision to compute.
            batch_size: Views in one forward pass.
            workers: Processes that load clips.
            on_clip: Called with views done and all views of this process.

        Raises:
            VideoError: A clip cannot be read.
        """
        share = {"rank": fabric.global_rank, "world_size": fabric.world_size}
        all_of_it = [
            batch
            for number in range(self.num_views)
            for batch in EveryClip(self._shape[1], batch_size, epoch=number, **share)
        ]
        self._forget_damaged(view for batch in all_of_it for view in batch)
        left = [batch for batch in all_of_it if not all(self._sums[epoch, place] for place, epoch in batch)]
        of = sum(map(len, all_of_it))
        done = of - sum(map(len, left))
        if left:
            loader = BatchLoader(self._data, left, workers=workers, pin_memory=False)
            try:
                for views, batch in zip(left, loader, strict=True):
                    clips, classes, numbers = loaded(batch)
                    number = views[0].epoch
                    places = numbers.numpy()  # a tensor with one number would index like that number
                    with torch.no_grad(), fabric.autocast():
                        found = make(Batch(as_input(clips, loader, fabric.device), torch.empty(0), numbers, number))
                    self._kept[number, places] = found.float().cpu().numpy()
                    self._classes[number, places] = classes.numpy()
                    for place in places:  # at last: a kill between the two costs one batch
                        self._sums[number, place] = self._checksum(place, number)
                    done += len(places)
                    on_clip(done, of)
            finally:
                loader.close()
            for kept in (self._kept, self._classes, self._sums):
                kept.flush()
        self._data.close()
        fabric.barrier()

    def view(self, place: int, epoch: int) -> tuple[Tensor, int]:
        """What is kept of a clip's view, and its class.

        Raises:
            OutputError: It is not what was written. The next start of the run makes it again.
        """
        number = epoch % self.num_views
        kept: NDArray[np.float32] = np.array(self._kept[number, place])
        label = int(self._classes[number, place])
        if self._sums[number, place] != _checksum(kept, label, place, number):
            raise OutputError(
                f"View {number} of clip {place} in {str(self._folder)!r} is damaged. The same command with --resume "
                f"makes it again."
            )
        return torch.from_numpy(kept), label

    def __len__(self) -> int:
        return self._shape[1]

    def close(self) -> None:
        self._data.close()


def _checksum(kept: NDArray[np.float32], label: int, place: int, number: int) -> int:
    """Return the checksum of a cached view, its class and its index; never 0."""
    about = struct.pack("<qqq", label, place, number)
    return 1 << 32 | zlib.crc32(about, zlib.crc32(np.ascontiguousarray(kept).data))


def frozen_part(network: Video3DResNet | InceptionI3D, layer: str, device: torch.device) -> Callable[[Batch], Tensor]:
    """What `KeptViews.compute` takes for the output of the last frozen layer.

    The network stays as it is; a copy runs with its batch norms folded, like everywhere in this project where nothing
    learns.
    """
    folded = fold_batch_norms(network.eval()).to(device).to(memory_format=torch.channels_last_3d)
    assert isinstance(folded, (Video3DResNet, InceptionI3D))
    return lambda batch: folded.forward_to(layer, batch.clips.contiguous(memory_format=torch.channels_last_3d))


def feature_shape(
    network: Video3DResNet | InceptionI3D, layer: str, view_shape: tuple[int, ...], device: torch.device
) -> tuple[int, ...]:
    """(C, T', H', W') of a layer for one view (3, T, S, S)."""
    with torch.no_grad():
        return tuple(network.eval().forward_to(layer, torch.zeros(1, *view_shape, device=device)).shape[1:])


def bytes_needed(shape: tuple[int, ...], num_views: int) -> int:
    """Bytes of disk that the cache of all views takes."""
    return 4 * math.prod(shape) * num_views


def check_room(shape: tuple[int, ...], *, num_clips: int, num_views: int, num_measured: int, max_bytes: int) -> None:
    """Refuse what would not fit.

    Raises:
        UsageError: The features of all views, and of the validation clips' middle views, take more than `max_bytes`.
    """
    needed = bytes_needed(shape, num_views * num_clips + num_measured)
    if needed > max_bytes:
        raise UsageError(
            f"The features of {num_views} views of {num_clips} clips, and of the middle of {num_measured}, take "
            f"{needed / 2**30:.1f} GiB, above the cache's {max_bytes / 2**30:.1f}. Allow more with --set "
            f"cache_gib=..., take fewer views with --set frozen_views=..., or none with --set frozen_views=0."
        )
