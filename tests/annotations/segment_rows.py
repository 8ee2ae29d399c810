"""Segments to write and read again, and what is left of them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from nonlocal_video.annotations.segment import AnnotatedSegment, Annotations

LABELS = ("arm wrestling", "a<b & c", 'say "hi", please', "übung 做", "walk")


def made_up(video: Path, count: int = 60, *, seed: int = 0, scores: bool = True) -> list[AnnotatedSegment]:
    """Segments that overlap, touch and are as short as a few milliseconds."""
    dice = random.Random(seed)
    rows: list[AnnotatedSegment] = []
    for number in range(count):
        start = dice.randrange(0, 100_000) / 1000 if number % 3 else rows[-1].end_seconds if rows else 0.0
        end = round(start + dice.randrange(3, 15_000) / 1000, 3)
        score = dice.choice([None, 0.5, 0.93]) if scores else None
        rows.append(AnnotatedSegment(str(video), start, end, dice.choice(LABELS), score=score))
    return rows


def spans(rows: Iterable[AnnotatedSegment]) -> list[tuple[float, float, str]]:
    return sorted((round(row.start_seconds, 6), round(row.end_seconds, 6), row.label) for row in rows)


def scored(rows: Iterable[AnnotatedSegment]) -> list[tuple[float, float, str, float]]:
    return sorted(
        (row.start_seconds, row.end_seconds, row.label, -1.0 if row.score is None else row.score) for row in rows
    )


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def first(found: Annotations) -> tuple[float, float, str]:
    return spans(found)[0]
