"""Moments from scores: the best ones, each joined with its neighbours in time.

A moment is joined with the windows before and after it, one after another, that score at least a share of what it does;
then what it overlaps is taken away, and the best of the rest is next. So a moment does not depend on how many are asked
for, no two overlap, and an action that fills an hour is one moment, not a thousand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.retrieval.chamfer import Scores
from nonlocal_video.retrieval.windows import TOUCHING, Windows

JOIN_SHARE = 0.6
"""Share of a moment's score with which a neighbouring window still belongs to it. A larger share cuts actions that are
longer than the example short, a smaller one adds what happens before and after (docs/search.md)."""


@dataclass(frozen=True)
class Moment:
    """Windows of one file, one after another, that look like the examples."""

    best: int
    """Row of the first window of the part that scored best."""
    first: int
    """Row of its first window."""
    last: int
    """Row of its last window."""
    score: float
    """Score of its best part."""


def best_moments(scores: Scores, windows: Windows, allowed: NDArray[np.bool_], top_k: int) -> list[Moment]:
    """Find the best moments.

    Args:
        scores: Of the archive.
        windows: In the order of their paths and starts.
        allowed: (W,) as for `score_moments`.
        top_k: Number of moments.

    Returns:
        Up to `top_k`, best first; of equal ones the first by path and start.
    """
    free = allowed.copy()  # and not covered by a moment yet
    found: list[Moment] = []
    for best in _ranked(scores, top_k):
        stop = int(scores.stop[best])
        if not free[best:stop].all():
            continue
        score = float(scores.of_moment[best])
        first = _reach(scores.of_window, windows, free, best, -1, score)
        last = _reach(scores.of_window, windows, free, stop - 1, 1, score)
        found.append(Moment(best, first, last, score))
        if len(found) == top_k:
            break
        free[overlapping(windows, first, last)] = False
    return found


def _ranked(scores: Scores, top_k: int) -> Iterator[int]:
    """Return the rows with which moments begin, best first, and in their own order where scores are equal.

    Only the ones that are used are sorted.
    """
    rows = np.flatnonzero(scores.stop > np.arange(len(scores.stop)))
    values = scores.of_moment[rows]
    done, wanted = 0, 8 * top_k
    while done < len(rows):
        chosen = np.arange(len(rows))
        if wanted < len(rows):
            chosen = np.flatnonzero(values >= np.partition(values, -wanted)[-wanted])  # with all that equal the last
        order = rows[chosen[np.argsort(-values[chosen], kind="stable")]]
        yield from order[done:].tolist()
        done, wanted = len(order), 8 * wanted


def _reach(
    of_window: NDArray[np.float32], windows: Windows, free: NDArray[np.bool_], row: int, step: int, score: float
) -> int:
    """Return the last row of the moment in one direction of time."""
    while score > 0 and 0 <= row + step < len(free):
        touches = windows.touches_next[min(row, row + step)]
        if not touches or not free[row + step] or of_window[row + step] < JOIN_SHARE * score:
            break
        row += step
    return row


def overlapping(windows: Windows, first: int, last: int) -> NDArray[np.int64]:
    """Return the rows of a file's windows that overlap those from `first` to `last`."""
    start, end = windows.starts[first], windows.ends[first : last + 1].max()
    begin, stop = windows.rows_of(int(windows.path_of[first]))
    inside = (windows.starts[begin:stop] < end - TOUCHING) & (windows.ends[begin:stop] > start + TOUCHING)
    return np.asarray(begin + np.flatnonzero(inside))
