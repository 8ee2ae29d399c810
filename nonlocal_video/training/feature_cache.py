"""Disk cache of what frozen layers or a teacher's student need of a fixed set of views: features or clips."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.models.folding import fold_batch_norms
from nonlocal_video.models.inception3d import InceptionI3D
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.training.disk_cache import TensorTable
from nonlocal_video.training.loading import BatchLoader, EveryClip, TrainingData, as_input, loaded
from nonlocal_video.training.objective import Batch

if TYPE_CHECKING:
    from lightning.fabric import Fabric


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
        self._data = data
        self._table = TensorTable(folder, (num_views, len(data), *shape))

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
            batch for view in range(self.num_views) for batch in EveryClip(len(self), batch_size, epoch=view, **share)
        ]
        self._table.drop_damaged(key for batch in all_batches for key in batch)
        missing = [batch for batch in all_batches if not all(self._table.has(*key) for key in batch)]
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
                    self._table.put(indices, view, found.float().cpu().numpy(), classes.numpy())
                    done += len(indices)
                    on_clip(done, total)
            finally:
                loader.close()
            self._table.flush()
        self._data.close()
        fabric.barrier()

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return the cached tensor of a clip's view, and the clip's class.

        Raises:
            OutputError: The tensor is damaged; the next start of the run recomputes it.
        """
        view = epoch % self.num_views
        found = self._table.get(index, view)
        if found is None:
            raise OutputError(
                f"View {view} of clip {index} in {str(self._table.folder)!r} is damaged. The same command with "
                f"--resume recomputes it."
            )
        return torch.from_numpy(found[0]), found[1]

    def __len__(self) -> int:
        return self._table.shape[1]

    def close(self) -> None:
        """Close the data set of the clips."""
        self._data.close()


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
