"""Batches in an order that depends on the seed and the epoch alone, whoever loads them and wherever a run goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nonlocal_video.errors import VideoError


class TrainingData(Protocol):
    """What training and measuring take: `ClipDataset` and whatever has the same members."""

    def set_epoch(self, epoch: int) -> None: ...

    def close(self) -> None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


class EpochBatches(Sampler[list[int]]):
    """Places of one process's clips of each batch: the global batches of a shuffled epoch, of which it takes its share.

    A last batch that is not whole is left away: each clip has its turn in another epoch.
    """

    def __init__(
        self, num_clips: int, batch_size: int, *, seed: int, shuffle: bool, rank: int = 0, world_size: int = 1
    ) -> None:
        """`batch_size` counts the clips of all processes together; it is a multiple of their number."""
        self.num_clips, self.batch_size, self.seed, self.shuffle = num_clips, batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first = 0, 0
        """The epoch, and its first batch to be taken: set both before each pass."""

    @property
    def num_batches(self) -> int:
        """Of a whole epoch."""
        return self.num_clips // self.batch_size

    def places(self, epoch: int, batch: int) -> list[int]:
        """The clips of all processes in one batch."""
        order = np.arange(self.num_clips)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.num_clips)
        return [int(place) for place in order[batch * self.batch_size : (batch + 1) * self.batch_size]]

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.first, self.num_batches):
            yield self.places(self.epoch, batch)[self.rank :: self.world_size]

    def __len__(self) -> int:
        return self.num_batches - self.first


class EveryClip(Sampler[list[int]]):
    """Places of one process's share of all clips, in order; the last batch may be smaller."""

    def __init__(self, num_clips: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        mine = range(rank, num_clips, world_size)
        self._batches = [list(mine[first : first + batch_size]) for first in range(0, len(mine), batch_size)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def make_loader(
    data: TrainingData, batches: Sampler[list[int]], *, workers: int, pin_memory: bool
) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    """Clips (N, 3, T, S, S), classes (N,) and places (N,); workers stay from one epoch to the next."""
    return DataLoader(
        _WithPlaces(data),
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        collate_fn=_collate,
    )


def loaded(batch: tuple[Tensor, Tensor, Tensor] | VideoError) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of `make_loader`.

    Raises:
        VideoError: A clip of it could not be read.
    """
    if isinstance(batch, VideoError):
        raise batch
    return batch


class _WithPlaces(Dataset[Any]):
    """Items with their places; an error is an item, as one that is raised in a worker loses its type and its code."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int] | VideoError:
        try:
            clip, label = self.data[index]
        except VideoError as error:
            return error
        return clip, label, index


def _collate(items: Sequence[tuple[Tensor, int, int] | VideoError]) -> tuple[Tensor, Tensor, Tensor] | VideoError:
    good = []
    for item in items:
        if isinstance(item, VideoError):
            return item
        good.append(item)
    clips, labels, places = zip(*good, strict=True)
    return torch.stack(clips), torch.tensor(labels), torch.tensor(places)
