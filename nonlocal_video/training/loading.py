"""Batch sampling and loading.

The order of the clips depends on the seed and the epoch alone: not on the number of loading processes, nor on where a
run is resumed.
"""

from __future__ import annotations

import functools
import os
import signal
import weakref
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nonlocal_video.errors import NonlocalVideoError
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.transforms import normalise

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingData(Protocol):
    """Interface of data sets for training and validation, such as `ClipDataset`."""

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return the view of a clip in an epoch, and the clip's class."""
        ...

    def close(self) -> None:
        """End the processes of the data set."""
        ...

    def __len__(self) -> int: ...


@runtime_checkable
class PixelData(Protocol):
    """Interface of a `TrainingData` with pixel views, which stay uint8 until they are on the device."""

    spec: InputSpec

    def pixels(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return the view before normalisation, uint8 (T, S, S, 3), and the clip's class."""
        ...


class ViewKey(NamedTuple):
    """Key of a view: all that a loading process needs, so that it can already load clips of the next epoch."""

    clip: int
    """Index of the clip in the data set."""
    epoch: int
    """Index of the epoch."""


class EpochBatches(Sampler[list[ViewKey]]):
    """Samples one process's share of the batches of a whole run, epoch after epoch, shuffled.

    The incomplete last batch of an epoch is dropped.
    """

    def __init__(
        self,
        num_clips: int,
        batch_size: int,
        *,
        seed: int,
        epochs: int,
        group: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Plan the batches.

        Args:
            num_clips: Number of clips.
            batch_size: Clips per batch over all processes; a multiple of their number.
            seed: Seed of the shuffles.
            epochs: Number of epochs.
            group: Batches per optimisation step; an epoch has whole steps only.
            rank: Rank of this process.
            world_size: Number of processes.
        """
        self.num_clips, self.batch_size, self.seed, self.epochs = num_clips, batch_size, seed, epochs
        self.rank, self.world_size = rank, world_size
        self.num_batches = num_clips // batch_size // group * group
        """Number of batches in one epoch."""
        self.first = 0
        """Index of the first batch to sample: set it before iterating, to resume a run."""

    def clip_indices(self, epoch: int, batch: int) -> list[int]:
        """Return the indices of the clips in one batch, over all processes."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_clips)
        return [int(clip) for clip in order[batch * self.batch_size : (batch + 1) * self.batch_size]]

    def __iter__(self) -> Iterator[list[ViewKey]]:
        for batch_number in range(self.first, self.epochs * self.num_batches):
            epoch, batch = divmod(batch_number, self.num_batches)
            yield [ViewKey(clip, epoch) for clip in self.clip_indices(epoch, batch)[self.rank :: self.world_size]]

    def __len__(self) -> int:
        return self.epochs * self.num_batches - self.first


class EveryClip(Sampler[list[ViewKey]]):
    """Samples one process's share of all clips once, in order; the last batch may be smaller."""

    def __init__(self, num_clips: int, batch_size: int, *, epoch: int = 0, rank: int = 0, world_size: int = 1) -> None:
        mine = [ViewKey(clip, epoch) for clip in range(rank, num_clips, world_size)]
        self._batches = [mine[first : first + batch_size] for first in range(0, len(mine), batch_size)]

    def __iter__(self) -> Iterator[list[ViewKey]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class BatchLoader(DataLoader[Any]):
    """Loads batches of clips, classes (N,) and clip indices (N,), all on the CPU.

    Clips of `PixelData` are uint8 (N, T, S, S, 3); `as_input` turns them into the network's input. Loading processes
    persist between passes. They ignore SIGINT and SIGTERM, which terminals and service managers send to all processes,
    as the run still needs them to finish its step.
    """

    def __init__(self, data: TrainingData, batches: Iterable[list[ViewKey]], *, workers: int, pin_memory: bool) -> None:
        self._may_end: Any = RawValue("b", 0)
        """Shared flag, 1 once the loading processes may end; PyTorch ends them by SIGTERM."""
        super().__init__(
            _WithIndex(data),
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            collate_fn=_collate,
            worker_init_fn=functools.partial(_ignore_signals, may_end=self._may_end),
        )
        weakref.finalize(self, _set, self._may_end)  # also at exit, before PyTorch ends them

    def __iter__(self) -> Any:
        self._may_end.value = 0
        # A new process does not ignore signals yet.
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)

    def close(self) -> None:
        """End the loading processes now; an exception's traceback could keep them alive until garbage collection."""
        self._may_end.value = 1
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def _set(may_end: Any) -> None:
    may_end.value = 1


def _ignore_signals(_worker: int, *, may_end: Any) -> None:
    def end(_number: int, _frame: FrameType | None) -> None:
        if may_end.value:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def loaded(batch: tuple[Tensor, Tensor, Tensor] | NonlocalVideoError) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch of a `BatchLoader`, or raise the error that it holds.

    Raises:
        VideoError: A clip of the batch could not be read.
        OutputError: The cache of decoded clips could not be read or written.
    """
    if isinstance(batch, NonlocalVideoError):
        raise batch
    return batch


def as_input(clips: Tensor, loader: DataLoader[Any], device: torch.device) -> Tensor:
    """Move clips to the device, and normalise pixels there.

    The copy from pinned memory is asynchronous: only later work on the device waits for it.

    Args:
        clips: Clips from `loaded`.
        loader: Loader that they came from.
        device: Device of the network.

    Returns:
        (N, 3, T, S, S) float32 on the device; cached features are moved unchanged.
    """
    clips = clips.to(device, non_blocking=True)
    data = loader.dataset.data if isinstance(loader.dataset, _WithIndex) else None
    return normalise(clips, data.spec.mean, data.spec.std) if isinstance(data, PixelData) else clips


class _WithIndex(Dataset[Any]):
    """Items with their index. Errors are returned: raised in a worker, they would lose their code and message."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data
        self._view = data.pixels if isinstance(data, PixelData) else data.view

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: ViewKey) -> tuple[Tensor, int, int] | NonlocalVideoError:
        try:
            clip, label = self._view(*key)
        except NonlocalVideoError as error:
            return error
        return clip, label, key.clip


def _collate(
    items: Sequence[tuple[Tensor, int, int] | NonlocalVideoError],
) -> tuple[Tensor, Tensor, Tensor] | NonlocalVideoError:
    loaded_items = []
    for item in items:
        if isinstance(item, NonlocalVideoError):
            return item
        loaded_items.append(item)
    clips, labels, indices = zip(*loaded_items, strict=True)
    return torch.stack(clips), torch.tensor(labels), torch.tensor(indices)
