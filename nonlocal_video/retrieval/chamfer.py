"""Similarity of a moment and an example: the Chamfer similarity of their windows.

For each window of the example the most alike one of the moment, on average, and the other way round; the mean of both.
Of one window each it is their cosine. With a longer example the moments are as long as it, n windows one after another,
and every window of the archive begins one. See Barrow et al., 1977, for the distance; for actions of few examples it
does better than ordered alignments and than means of windows (docs/search.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from nonlocal_video.errors import UsageError
from nonlocal_video.retrieval.likeness import Floats, cosines
from nonlocal_video.retrieval.windows import Windows

UNLIKE_WEIGHT = 0.5
"""Weight of the mean similarity to the negative examples, subtracted from that to the positive ones."""
DECIMALS = 6
"""Digits of a score. The order of a sum changes the seventh; moments that are the same get the same score."""
MAX_EXAMPLE_WINDOWS = 1000
"""Most windows of an example: one that lasts longer is no moment, and would cost gigabytes and hours."""
_BLOCK_ENTRIES = 2**24


@dataclass(frozen=True)
class Scores:
    """Scores of every window of an archive, and of the moments that begin with it."""

    of_moment: Floats
    """Score of the moment that begins with each window, (W,); meaningless where none begins."""
    of_window: Floats
    """Score of the window alone, (W,): its most alike window of each example."""
    stop: NDArray[np.int64]
    """Row after the last one of the moment that begins with each window, (W,); the window itself if none begins."""


def score_moments(
    vectors: NDArray[np.float16] | Floats,
    windows: Windows,
    allowed: NDArray[np.bool_],
    likes: Sequence[Floats],
    unlikes: Sequence[Floats] = (),
) -> Scores:
    """Score an archive.

    Args:
        vectors: Unit vectors (W, C).
        windows: In the same order.
        allowed: (W,) windows that a moment may have.
        likes: Unit vectors (n, C) of the windows of each positive example; at least one.
        unlikes: Likewise for each negative example; may be empty.

    Returns:
        Mean over the positive examples, less half of the mean over the negative ones. A moment has as many windows as
        the positive examples have on average, or all of a file, or stretch of it, that has fewer.

    Raises:
        UsageError: An example has more than `MAX_EXAMPLE_WINDOWS` windows.
    """
    examples = [(rows, 1 / len(likes)) for rows in likes] + [(rows, -UNLIKE_WEIGHT / len(unlikes)) for rows in unlikes]
    longest = max(len(rows) for rows, _ in examples)
    if longest > MAX_EXAMPLE_WINDOWS:
        raise UsageError(
            f"An example has {longest} windows, and {MAX_EXAMPLE_WINDOWS} are allowed. Give the moment of it that "
            f"matters: --at, or --start-seconds and --end-seconds."
        )
    length = round(sum(len(rows) for rows in likes) / len(likes))
    first, last = _stretches(windows, allowed)
    stop = _stops(first, last, length)
    of_moment, of_window = np.zeros(len(windows)), np.zeros(len(windows))
    queries = np.concatenate([rows for rows, _ in examples])
    bounds = np.cumsum([0, *(len(rows) for rows, _ in examples)])
    for begin, end in _blocks(last, _BLOCK_ENTRIES // len(queries)):
        likeness = cosines(vectors[begin:end], queries)
        for (_, weight), start_column, end_column in zip(examples, bounds[:-1], bounds[1:], strict=True):
            columns = likeness[:, start_column:end_column]
            best = columns.max(axis=1)
            of_window[begin:end] += weight * best
            of_moment[begin:end] += weight * _chamfer(columns, best, stop[begin:end] - begin, length)
    return Scores(_rounded(of_moment), _rounded(of_window), stop)


def _chamfer(columns: Floats, best: Floats, stop: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    """Similarity of an example and the moment from each row up to its stop: (R, n) cosines -> (R,)."""
    rows = np.arange(len(columns))
    sums = np.concatenate([[0.0], np.cumsum(best, dtype=np.float64)])
    to_example = (sums[stop] - sums[rows]) / np.maximum(stop - rows, 1)
    # By default a row is in the middle of the filter's rows; with this origin it is the first of them.
    maxima = maximum_filter1d(columns, length, axis=0, mode="nearest", origin=-(length // 2))
    from_example = maxima.mean(axis=1, dtype=np.float64)
    shorter = np.flatnonzero((stop > rows) & (stop - rows < length))
    if len(shorter):
        edges = np.stack([shorter, np.minimum(stop[shorter], len(columns) - 1)], axis=1).ravel()
        maxima = np.maximum.reduceat(columns, edges, axis=0)[::2]
        at_end = np.flatnonzero(stop[shorter] == len(columns))  # reduceat has no end there
        for row in at_end.tolist():
            maxima[row] = columns[shorter[row] :].max(axis=0)
        from_example[shorter] = maxima.mean(axis=1, dtype=np.float64)
    return np.asarray((to_example + from_example) / 2)


def _stretches(windows: Windows, allowed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each row, the first row of its stretch and the one after its last: allowed windows that touch.

    A window that is not allowed is in a stretch without rows.
    """
    rows = np.arange(len(windows))
    begins = np.ones(len(windows), dtype=bool)
    begins[1:] = ~(windows.touches_next[:-1] & allowed[:-1] & allowed[1:])
    starts = np.flatnonzero(begins)
    number = np.cumsum(begins) - 1
    first, last = starts[number], np.append(starts[1:], len(windows))[number]
    return np.where(allowed, first, rows), np.where(allowed, last, rows)


def _stops(first: NDArray[np.int64], last: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return the row after the moment that begins with each row; the row itself if none does."""
    rows = np.arange(len(first))
    is_whole, is_all = rows + length <= last, (rows == first) & (rows < last)
    return np.where(is_whole, rows + length, np.where(is_all, last, rows))


def _blocks(last: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Cut the rows into blocks of about `most` that split no stretch."""
    blocks, begin = [], 0
    while begin < len(last):
        end = max(begin + 1, min(begin + most, len(last)))
        end = max(end, int(last[end - 1]))
        blocks.append((begin, end))
        begin = end
    return blocks


def _rounded(scores: NDArray[np.float64]) -> Floats:
    return np.asarray(np.round(scores, DECIMALS) + 0.0, dtype=np.float32)  # no negative zeros
