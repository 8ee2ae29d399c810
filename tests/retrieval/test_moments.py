"""Scores and moments against their definitions, applied window by window to small random archives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nonlocal_video.errors import UsageError
from nonlocal_video.retrieval import chamfer
from nonlocal_video.retrieval.chamfer import MAX_EXAMPLE_WINDOWS, Scores, score_moments
from nonlocal_video.retrieval.moments import JOIN_SHARE, best_moments
from nonlocal_video.retrieval.windows import Windows

Row = tuple[str, float, float]


def windows_of(rows: list[Row]) -> Windows:
    paths = sorted({path for path, _, _ in rows})
    numbers = np.array([paths.index(path) for path, _, _ in rows])
    starts, ends = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    windows, order = Windows.ordered(paths, numbers, starts, ends, (starts + ends) / 2)
    assert order.tolist() == list(range(len(rows)))
    return windows


@dataclass
class Made:
    """A random archive: rows in order, unit vectors, which of them are allowed, and examples."""

    rows: list[Row]
    vectors: np.ndarray
    allowed: np.ndarray
    likes: list[np.ndarray]
    unlikes: list[np.ndarray]


def made(seed: int) -> Made:
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for path in ("a/z.mp4", "a/é.mp4", "b.mp4", "c.mp4"):
        start = 0.0
        for _ in range(int(random.integers(1, 30))):
            rows.append((path, start, start + 2.0))
            start += float(random.choice([1.0, 1.0, 2.0, 2.5]))  # overlapping, touching, apart
    vectors = random.integers(-2, 3, (len(rows), 3)).astype(np.float32)  # few different ones: many ties
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)
    allowed = random.random(len(rows)) > 0.1
    pick = lambda: vectors[random.integers(0, len(rows), int(random.integers(1, 5)))]  # noqa: E731
    return Made(rows, vectors, allowed, [pick() for _ in range(1 + seed % 3)], [pick() for _ in range(seed % 2)])


def similarity(moment: list[np.ndarray], example: np.ndarray) -> float:
    """Find the most alike window of the other side for each window."""
    back = [max(float(one @ other) for other in moment) for one in example]
    forth = [max(float(one @ other) for other in example) for one in moment]
    return (sum(back) / len(back) + sum(forth) / len(forth)) / 2


def total(moment: list[np.ndarray], archive: Made) -> float:
    like = [similarity(moment, example) for example in archive.likes]
    unlike = [similarity(moment, example) for example in archive.unlikes]
    return sum(like) / len(like) - (0.5 * sum(unlike) / len(unlike) if unlike else 0)


def moments_of(archive: Made) -> dict[int, list[int]]:
    """First row -> rows of each moment: as many as the examples have, or all that there are in a row."""
    length = round(sum(map(len, archive.likes)) / len(archive.likes))
    stretches: list[list[int]] = []
    for number, (path, start, _) in enumerate(archive.rows):
        if not archive.allowed[number]:
            continue
        before = archive.rows[number - 1] if number and archive.allowed[number - 1] else None
        if before is not None and before[0] == path and start <= before[2]:
            stretches[-1].append(number)
        else:
            stretches.append([number])
    found = {}
    for stretch in stretches:
        for begin in range(max(1, len(stretch) - length + 1)):
            found[stretch[begin]] = stretch[begin : begin + length]
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("block", [1, 2**24])
def test_scores_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch, seed: int, block: int) -> None:
    monkeypatch.setattr(chamfer, "_BLOCK_ENTRIES", block)  # the archive in many parts, or in one
    archive = made(seed)
    scores = score_moments(archive.vectors, windows_of(archive.rows), archive.allowed, archive.likes, archive.unlikes)
    moments = moments_of(archive)
    assert [row for row in range(len(archive.rows)) if scores.stop[row] > row] == list(moments)
    for first, rows in moments.items():
        assert list(range(first, scores.stop[first])) == rows
        assert scores.of_moment[first] == pytest.approx(
            total([archive.vectors[row] for row in rows], archive), abs=2e-6
        )
    best = [max(float(archive.vectors[row] @ one) for one in archive.likes[0]) for row in range(len(archive.rows))]
    if len(archive.likes) == 1 and not archive.unlikes:
        np.testing.assert_allclose(scores.of_window, best, atol=2e-6)


def by_definition(archive: Made, scores: Scores, top_k: int) -> list[tuple[int, int, int]]:
    """Take the best moment left, join neighbours in time, take away all that overlaps; and so on."""
    left = {number for number in range(len(archive.rows)) if archive.allowed[number]}
    candidates = moments_of(archive)
    found: list[tuple[int, int, int]] = []
    while len(found) < top_k:
        possible = [first for first, rows in candidates.items() if left.issuperset(rows)]
        if not possible:
            break
        best = min(possible, key=lambda first: (-scores.of_moment[first], first))
        rows, score = list(candidates[best]), scores.of_moment[best]
        for edge, step in ((0, -1), (-1, 1)):
            while score > 0:
                row, other = rows[edge], rows[edge] + step
                if other not in left or archive.rows[other][0] != archive.rows[row][0]:
                    break
                earlier, later = sorted((row, other))
                if archive.rows[later][1] > archive.rows[earlier][2] or scores.of_window[other] < JOIN_SHARE * score:
                    break
                rows = [other, *rows] if step < 0 else [*rows, other]
        found.append((best, rows[0], rows[-1]))
        path, start, end = archive.rows[best][0], archive.rows[rows[0]][1], archive.rows[rows[-1]][2]
        left = {
            n for n in left if archive.rows[n][0] != path or archive.rows[n][1] >= end or archive.rows[n][2] <= start
        }
    return found


@pytest.mark.parametrize("seed", range(12))
def test_moments_are_those_of_the_definition(seed: int) -> None:
    archive = made(seed)
    windows = windows_of(archive.rows)
    scores = score_moments(archive.vectors, windows, archive.allowed, archive.likes, archive.unlikes)
    moments = best_moments(scores, windows, archive.allowed, 9)
    assert [(one.best, one.first, one.last) for one in moments] == by_definition(archive, scores, 9)
    assert best_moments(scores, windows, archive.allowed, 2) == moments[:2]  # does not depend on how many


def test_equal_windows_score_the_same_wherever_they_are() -> None:
    random = np.random.default_rng(1)
    vectors = (random.normal(size=(3000, 1024)) / 32).astype(np.float32)
    same = [0, 1, 7, 1023, 1024, 2048, 2999]
    vectors[same] = vectors[0]
    windows = windows_of([("a.mp4", float(start), start + 1.0) for start in range(3000)])
    for example in (vectors[3:4], vectors[3:6]):
        scores = score_moments(vectors, windows, np.ones(3000, dtype=bool), [example])
        assert len(set(scores.of_window[same].tolist())) == 1
    assert len(set(scores.of_window.tolist())) > 2000


def test_an_action_that_fills_an_hour_is_one_moment() -> None:
    rows = [("long.mp4", float(start), start + 2.0) for start in range(3600)] + [("other.mp4", 0.0, 2.0)]
    values = np.linspace(0.8, 0.9, 3601).astype(np.float32)
    values[-1] = 0.1
    scores = Scores(values, values, np.arange(1, 3602))
    first, second = best_moments(scores, windows_of(rows), np.ones(3601, dtype=bool), 20)
    assert (first.first, first.last, first.best) == (0, 3599, 3599)
    assert second.best == 3600


def test_no_moment_without_windows() -> None:
    windows = windows_of([("a.mp4", 0.0, 2.0)])
    nothing = np.zeros(1, dtype=bool)
    vector = np.ones((1, 1), dtype=np.float32)
    assert best_moments(score_moments(vector, windows, nothing, [vector]), windows, nothing, 3) == []


def test_an_example_of_hours_is_refused() -> None:
    windows, vector = windows_of([("a.mp4", 0.0, 2.0)]), np.ones((1, 1), dtype=np.float32)
    with pytest.raises(UsageError, match="Give the moment"):
        score_moments(vector, windows, np.ones(1, dtype=bool), [np.repeat(vector, MAX_EXAMPLE_WINDOWS + 1, axis=0)])
