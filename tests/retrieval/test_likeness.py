"""Likeness against cosines written out in float64, from the features themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nonlocal_video.retrieval.likeness import CHUNK_ROWS, Centring, cosines


def likeness(features: np.ndarray, one: int, other: int) -> float:
    """The same as a reader would write it down, one number at a time."""
    count = len(features)
    roots = [[math.copysign(math.sqrt(abs(value)), value) for value in row] for row in features.tolist()]
    shared = [count / (count + 8) * sum(column) / count for column in zip(*roots, strict=True)]
    a, b = ([value - mean for value, mean in zip(roots[row], shared, strict=True)] for row in (one, other))
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_likeness_is_the_cosine_of_centred_square_roots(lowest: float) -> None:
    random = np.random.default_rng(0)
    features = random.uniform(lowest, 3, size=(CHUNK_ROWS + 77, 24)).astype(np.float32)
    vectors = Centring.of(features).unit(features)
    pairs = [(0, 5), (7, CHUNK_ROWS), (CHUNK_ROWS + 76, 9), (3, 3)]
    expected = [likeness(features.astype(float), *pair) for pair in pairs]
    for stored, tolerance in ((vectors, 2e-6), (vectors.astype(np.float16), 1e-3)):
        found = cosines(stored, vectors[[query for _, query in pairs]])
        np.testing.assert_allclose(
            [found[row, query] for query, (row, _) in enumerate(pairs)], expected, atol=tolerance
        )


def test_a_window_without_a_direction_is_like_nothing() -> None:
    centring = Centring(np.array([1.25, 1.25], dtype=np.float32), 32)  # 32 / 40 of it are the window
    assert centring.unit(np.ones((1, 2), dtype=np.float32)).tolist() == [[0, 0]]
    assert centring.unit(np.zeros((1, 2), dtype=np.float32))[0] == pytest.approx([-(0.5**0.5)] * 2)
