"""Segments of at least so many seconds, exactly the best ones: a Potts model solved as Viterbi does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_ROUNDING_SECONDS = 1e-6
CHANGE_COSTS = 0.5
"""Seconds of certainty that a change costs, for each second of the shortest action."""


def best_segments(
    moments: Iterable[tuple[float, NDArray[np.float64]]], shortest_seconds: float
) -> list[tuple[int, int, int]]:
    """Cut time into segments, each of one class, of which none is shorter than `shortest_seconds`.

    Of all ways to cut and label it finds one that maximises

        sum over moments of seconds * score of the moment's class  -  shortest_seconds / 2 for each change of class.

    With probabilities as scores the first sum is the number of seconds expected to be labelled right; and an action
    between two stretches of another, which costs two changes, has to add `shortest_seconds` of them. Time that is
    shorter than that as a whole is one segment.

    Dynamic programming over the bounds of moments: O(moments x classes) time, O(moments + classes) memory.

    Args:
        moments: Length in seconds and scores (K,) of each, in order.
        shortest_seconds: 0 or above.

    Returns:
        (first moment, one after the last, class) of each segment, in order.
    """
    cost = CHANGE_COSTS * shortest_seconds
    waiting: deque[tuple[float, NDArray[np.float64]]] = deque()  # moments at which no segment may have begun yet
    times, values = [0.0], [0.0]  # of each bound: when it is, and the best sum before it
    choices: list[tuple[int, int]] = [(0, 0)]  # of each bound: where its last segment begins, and its class
    begun = 0  # bounds at which a segment may have begun
    sum_to_end = sum_to_begin = gains = begins = np.zeros(0)
    for seconds, scores in moments:
        if len(times) == 1:
            sum_to_end, sum_to_begin = np.zeros_like(scores), np.zeros_like(scores)
            gains, begins = np.full_like(scores, -np.inf), np.zeros(len(scores), dtype=np.int64)
        waiting.append((seconds, scores))
        times.append(times[-1] + seconds)
        sum_to_end = sum_to_end + seconds * scores
        while waiting and times[-1] - times[begun] >= shortest_seconds - _ROUNDING_SECONDS:
            value = values[begun] - (cost if begun else 0.0) - sum_to_begin
            better = value > gains
            gains, begins = np.where(better, value, gains), np.where(better, begun, begins)
            length, row = waiting.popleft()
            sum_to_begin = sum_to_begin + length * row
            begun += 1
        sums = gains + sum_to_end
        best = int(sums.argmax())
        values.append(float(sums[best]))
        choices.append((int(begins[best]), best))
    end = len(times) - 1
    if not end:
        return []
    if values[-1] == -np.inf:
        return [(0, end, int(sum_to_end.argmax()))]
    segments: list[tuple[int, int, int]] = []
    while end:
        begin, index = choices[end]
        if segments and segments[-1][2] == index:  # of equal sums: one segment
            segments[-1] = (begin, segments[-1][1], index)
        else:
            segments.append((begin, end, index))
        end = begin
    return segments[::-1]
