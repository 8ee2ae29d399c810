"""Batches in an order that depends on the seed and the epoch alone, however they are loaded and a run is resumed."""

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
    """What training and measuring take: `ClipDataset` and whatever has the same members."""

    def view(self, place: int, epoch: int) -> tuple[Tensor, int]:
        """A clip as it is seen in an epoch, and its class."""
        ...

    def close(self) -> None: ...

    def __len__(self) -> int: ...


@runtime_checkable
class PixelData(Protocol):
    """A `TrainingData` whose views are pixels: they go from process to process, and to the device, as such."""

    spec: InputSpec

    def pixels(self, place: int, epoch: int) -> tuple[Tensor, int]:
        """A view before it is normalised, uint8 (T, S, S, 3), and its class."""
        ...


class View(NamedTuple):
    """Which view of which clip: all that a loading process has to be told, so that it may run ahead into an epoch."""

    place: int
    epoch: int


class EpochBatches(Sampler[list[View]]):
    """One process's share of the batches of a whole run: shuffled epochs, one after another without a break.

    An incomplete last batch is dropped: each clip has its turn in another epoch.
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
        """Plan.

        Args:
            num_clips: To be shuffled.
            batch_size: Clips of all processes together; a multiple of their number.
            seed: Of the orders.
            epochs: Of the run.
            group: So many batches make one step; an epoch has whole steps.
            rank: Of this process.
            world_size: Processes.
        """
        self.num_clips, self.batch_size, self.seed, self.epochs = num_clips, batch_size, seed, epochs
        self.rank, self.world_size = rank, world_size
        self.num_batches = num_clips // batch_size // group * group
        """Number of batches in one epoch."""
        self.first = 0
        """Batches of the run that are done: set it before the pass."""

    def places(self, epoch: int, batch: int) -> list[int]:
        """The clips of all processes in one batch."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_clips)
        return [int(place) for place in order[batch * self.batch_size : (batch + 1) * self.batch_size]]

    def __iter__(self) -> Iterator[list[View]]:
        for number in range(self.first, self.epochs * self.num_batches):
            epoch, batch = divmod(number, self.num_batches)
            yield [View(place, epoch) for place in self.places(epoch, batch)[self.rank :: self.world_size]]

    def __len__(self) -> int:
        return self.epochs * self.num_batches - self.first


class EveryClip(Sampler[list[View]]):
    """One process's share of all clips, in order; the last batch may be smaller."""

    def __init__(self, num_clips: int, batch_size: int, *, epoch: int = 0, rank: int = 0, world_size: int = 1) -> None:
        mine = [View(place, epoch) for place in range(rank, num_clips, world_size)]
        self._batches = [mine[first : first + batch_size] for first in range(0, len(mine), batch_size)]

    def __iter__(self) -> Iterator[list[View]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class BatchLoader(DataLoader[Any]):
    """Clips, classes (N,) and places (N,), all on the CPU; loading processes stay from one pass to the next.

    Clips of `PixelData` are uint8 (N, T, S, S, 3), and `as_input` makes the network's input of them.

    They leave signals to the run, which needs them for the step in hand: a terminal sends Ctrl-C to all processes, a
    service manager SIGTERM.
    """

    def __init__(self, data: TrainingData, batches: Iterable[list[View]], *, workers: int, pin_memory: bool) -> None:
        self._ending: Any = RawValue("b", 0)
        """A byte that the loading processes see: 1 as soon as they may be ended, which PyTorch does by SIGTERM."""
        super().__init__(
            _WithPlaces(data),
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            collate_fn=_collate,
            worker_init_fn=functools.partial(_leave_signals_to_the_run, ending=self._ending),
        )
        weakref.finalize(self, _set, self._ending)  # at the end of this process as well, before PyTorch ends them

    def __iter__(self) -> Any:
        self._ending.value = 0
        # A process that has just been started does not leave signals alone yet.
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)

    def close(self) -> None:
        """End the loading processes now. An error's traceback would keep them until garbage is collected."""
        self._ending.value = 1
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def _set(ending: Any) -> None:
    ending.value = 1


def _leave_signals_to_the_run(_worker: int, *, ending: Any) -> None:
    def end(_number: int, _frame: FrameType | None) -> None:
        if ending.value:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def loaded(batch: tuple[Tensor, Tensor, Tensor] | NonlocalVideoError) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of a `BatchLoader`.

    Raises:
        VideoError: A clip of it could not be read.
        OutputError: The cache of decoded clips could not be read or written.
    """
    if isinstance(batch, NonlocalVideoError):
        raise batch
    return batch


def as_input(clips: Tensor, loader: DataLoader[Any], device: torch.device) -> Tensor:
    """Move clips of a loader to the device, and normalise pixels there.

    The copy from pinned memory is only begun: the caller continues, and the device's later work waits for it.

    Args:
        clips: Of `loaded`.
        loader: That they came from.
        device: That computes.

    Returns:
        (N, 3, T, S, S) float32 on the device; what is not pixels stays as it is.
    """
    clips = clips.to(device, non_blocking=True)
    data = loader.dataset.data if isinstance(loader.dataset, _WithPlaces) else None
    return normalise(clips, data.spec.mean, data.spec.std) if isinstance(data, PixelData) else clips


class _WithPlaces(Dataset[Any]):
    """Items with their places; an error is an item, as one that is raised in a worker loses its code and its words."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data
        self._view = data.pixels if isinstance(data, PixelData) else data.view

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, view: View) -> tuple[Tensor, int, int] | NonlocalVideoError:
        try:
            clip, label = self._view(*view)
        except NonlocalVideoError as error:
            return error
        return clip, label, view.place


def _collate(
    items: Sequence[tuple[Tensor, int, int] | NonlocalVideoError],
) -> tuple[Tensor, Tensor, Tensor] | NonlocalVideoError:
    good = []
    for item in items:
        if isinstance(item, NonlocalVideoError):
            return item
        good.append(item)
    clips, labels, places = zip(*good, strict=True)
    return torch.stack(clips), torch.tensor(labels), torch.tensor(places)
