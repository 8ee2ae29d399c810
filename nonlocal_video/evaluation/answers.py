"""The model's answer for each labelled clip: the parts that metrics and report need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nonlocal_video.inference.prediction import Failure, Outcome, ScoredLabel

TOP_K = 5
NO_CLASS = -1


@dataclass(frozen=True)
class Truth:
    """Ground truth of a clip."""

    label: str
    """Class name, as the model spells it."""
    index: int
    """Index of the class in the model's outputs; `NO_CLASS` for a clip of `none of these`."""
    group: str | None
    """Group of the clip, see `LabelledClip`."""

    @property
    def is_none(self) -> bool:
        """Whether the clip shows none of the model's classes."""
        return self.index == NO_CLASS


@dataclass(frozen=True)
class Answer:
    """The model's top classes for one clip and the rank of the true class; or the error."""

    path: str
    """Path of the clip."""
    truth: Truth
    """Ground truth of the clip."""
    top: tuple[ScoredLabel, ...]
    """Top classes, best first, at most `TOP_K`; empty for an unreadable clip."""
    true_rank: int | None
    """Rank of the true class by score, from 1; ties in label order."""
    true_score: float | None
    """Score of the true class."""
    error: tuple[str, str] | None = None
    """Error code and message; None for a readable clip."""
    unknown: bool | None = None
    """Whether a taught model does not know the clip; None for other models."""

    @property
    def readable(self) -> bool:
        """Whether the clip could be read."""
        return self.error is None

    @property
    def right(self) -> bool:
        """Whether the top class is the true one; of a clip of `none of these`, whether it is unknown."""
        return self.unknown is True if self.truth.is_none else self.true_rank == 1

    @property
    def regret(self) -> float:
        """Score of the top class minus that of the true class: 0 if correct, at most 1."""
        return 0.0 if self.true_score is None else self.top[0].score - self.true_score


def to_row(outcome: Outcome, truth: Truth) -> dict[str, Any]:
    """Return a row of `classify --json` with label, rank and score of the true class added."""
    rank = score = None
    if not isinstance(outcome, Failure) and not truth.is_none:
        order = np.argsort(-outcome.scores, kind="stable")  # as in `Prediction.top`
        rank = int(np.flatnonzero(order == truth.index)[0]) + 1
        score = float(outcome.scores[truth.index])
    return outcome.to_row(TOP_K) | {"label": truth.label, "true_rank": rank, "true_score": score}


def from_row(row: Mapping[str, Any], truth: Truth) -> Answer:
    """Make an answer from a row of `to_row`."""
    return Answer(
        path=row["path"],
        truth=truth,
        top=tuple(ScoredLabel(**scored) for scored in row["top"]),
        true_rank=row["true_rank"],
        true_score=row["true_score"],
        unknown=row.get("unknown"),
        error=(row["error"]["code"], row["error"]["message"]) if row["error"] else None,
    )
