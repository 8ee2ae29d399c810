"""Segments of at least so many seconds are the best of all that there are."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nonlocal_video.inference.shortest_action import best_segments


def value_of(
    seconds: NDArray[np.float64], scores: NDArray[np.float64], path: tuple[int, ...], shortest: float
) -> float:
    """Value of a labelling of all moments; -inf if it has a segment that is too short."""
    cuts = [0, *[i for i in range(1, len(path)) if path[i] != path[i - 1]], len(path)]
    lengths = [seconds[first:end].sum() for first, end in pairwise(cuts)]
    if len(lengths) > 1 and min(lengths) < shortest - 1e-9:
        return -np.inf
    won = sum(seconds[i] * scores[i, label] for i, label in enumerate(path))
    return float(won - shortest / 2 * (len(lengths) - 1))


@settings(deadline=None, max_examples=60)
@given(
    num=st.integers(1, 7),
    classes=st.integers(1, 3),
    shortest=st.sampled_from([0.0, 0.4, 1.0, 2.5, 20.0]),
    seed=st.integers(0, 10_000),
)
def test_no_labelling_is_worth_more(num: int, classes: int, shortest: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    seconds, scores = random.choice([0.2, 0.5, 1.3], num), random.dirichlet(np.ones(classes), num)
    found = best_segments(zip(seconds.tolist(), scores, strict=True), shortest)
    assert [found[0][0], found[-1][1]] == [0, num]
    assert all(one[1] == other[0] and one[2] != other[2] for one, other in pairwise(found))
    path = tuple(index for first, end, index in found for _ in range(first, end))
    best = max(value_of(seconds, scores, every, shortest) for every in product(range(classes), repeat=num))
    assert value_of(seconds, scores, path, shortest) == pytest.approx(best, abs=1e-9)


def test_a_short_burst_goes_and_a_long_one_stays() -> None:
    def cut(burst: int) -> list[tuple[int, int, int]]:
        sure = np.array([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * burst + [[1.0, 0.0]] * 6)
        return best_segments(((1.0, row) for row in sure), 3.0)

    assert cut(2) == [(0, 14, 0)]
    assert cut(4) == [(0, 6, 0), (6, 10, 1), (10, 16, 0)]


def test_nothing_gives_no_segment() -> None:
    assert best_segments([], 1.0) == []
