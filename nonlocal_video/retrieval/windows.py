"""The windows of an archive, without their features: which file, from when to when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

TOUCHING = 1e-6
"""Windows so many seconds apart touch: their bounds are rounded to microseconds."""


@dataclass(frozen=True)
class Windows:
    """W windows of P files, in the order of their paths and then of their starts."""

    paths: tuple[str, ...]
    """Paths of the files as the table has them, sorted, (P,)."""
    path_of: NDArray[np.int64]
    """Number of each window's file, (W,)."""
    starts: NDArray[np.float64]
    """(W,) in the player's seconds."""
    ends: NDArray[np.float64]
    """(W,)."""
    centres: NDArray[np.float64]
    """(W,)."""

    @classmethod
    def ordered(
        cls,
        paths: Sequence[str],
        path_of: NDArray[np.int64],
        starts: NDArray[np.float64],
        ends: NDArray[np.float64],
        centres: NDArray[np.float64],
    ) -> tuple[Windows, NDArray[np.int64]]:
        """Sort windows by path and start.

        Args:
            paths: Each file's path once, in any order.
            path_of: Number of each window's path in `paths`, (W,).
            starts: (W,).
            ends: (W,).
            centres: (W,).

        Returns:
            The windows, and the number that each of them had before, (W,).
        """
        order_of_paths = sorted(range(len(paths)), key=lambda number: paths[number])
        rank = np.empty(len(paths), dtype=np.int64)
        rank[order_of_paths] = np.arange(len(paths))
        ranked = rank[path_of]
        order = np.lexsort((ends, starts, ranked))
        windows = cls(
            tuple(paths[number] for number in order_of_paths),
            ranked[order],
            starts[order],
            ends[order],
            centres[order],
        )
        return windows, order

    def __len__(self) -> int:
        return len(self.path_of)

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        return np.searchsorted(self.path_of, np.arange(len(self.paths) + 1))

    @cached_property
    def touches_next(self) -> NDArray[np.bool_]:
        """Whether the window after each one is of the same file and begins before it ends, or as it ends, (W,)."""
        touches = np.zeros(len(self), dtype=bool)
        touches[:-1] = (self.path_of[1:] == self.path_of[:-1]) & (self.starts[1:] <= self.ends[:-1] + TOUCHING)
        return touches

    def rows_of(self, path_number: int) -> tuple[int, int]:
        """Return the first row of a file's windows, and the one after the last."""
        return int(self._bounds[path_number]), int(self._bounds[path_number + 1])

    def subset(self, rows: NDArray[np.int64]) -> Windows:
        """Return some of the windows; `rows` ascend."""
        return Windows(self.paths, self.path_of[rows], self.starts[rows], self.ends[rows], self.centres[rows])

    def matching(self, include: Sequence[str], exclude: Sequence[str]) -> NDArray[np.bool_]:
        """Return which windows' paths match a pattern of `include` (all if it is empty) and none of `exclude`, (W,).

        A pattern with a / applies to the whole path, another to the name alone, as in `classify --include`.
        """
        fits = [
            (not include or any(_fits(path, pattern) for pattern in include))
            and not any(_fits(path, pattern) for pattern in exclude)
            for path in self.paths
        ]
        return np.asarray(np.array(fits, dtype=bool)[self.path_of])


def _fits(path: str, pattern: str) -> bool:
    return fnmatch(path if "/" in pattern else path.rpartition("/")[2], pattern)
