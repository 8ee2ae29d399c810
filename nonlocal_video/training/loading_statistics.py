"""Cost of loading clips: counts and seconds, which the workers of a data set share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch.utils.data import get_worker_info

_MAX_WORKERS = 256


@dataclass(frozen=True)
class LoadingStatistics:
    """Cost of loading so far, summed over all workers; seconds are wall-clock time of each."""

    clips: int
    from_cache: int
    put_in_cache: int
    decode_seconds: float
    """Seconds of decoding, including the resize."""
    cache_seconds: float
    """Seconds of reading and writing the cache."""
    transform_seconds: float
    """Seconds of augmentation and normalisation."""

    @property
    def decode_share(self) -> float:
        """Share of decoding and the cache in the time to load clips."""
        spent = self.decode_seconds + self.cache_seconds
        return spent / (spent + self.transform_seconds) if self.clips else 0.0


class LoadingCounter:
    """Adds up `LoadingStatistics` in shared memory, where each worker writes a row of its own, without a lock."""

    def __init__(self) -> None:
        self._position = {field.name: position for position, field in enumerate(fields(LoadingStatistics))}
        self._rows = torch.zeros(_MAX_WORKERS + 1, len(self._position), dtype=torch.float64).share_memory_()

    def add(self, **amounts: float) -> None:
        """Add to fields of `LoadingStatistics`."""
        worker = get_worker_info()
        row = self._rows[0 if worker is None else 1 + worker.id % _MAX_WORKERS]
        for name, amount in amounts.items():
            row[self._position[name]] += amount

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the wall-clock seconds of a block to a field; those of a block that fails do not count."""
        started = time.perf_counter()
        yield
        self.add(**{name: time.perf_counter() - started})

    def sums(self) -> LoadingStatistics:
        """Return the sums over all workers."""
        clips, from_cache, put_in_cache, *seconds = self._rows.sum(dim=0).tolist()
        return LoadingStatistics(int(clips), int(from_cache), int(put_in_cache), *seconds)
