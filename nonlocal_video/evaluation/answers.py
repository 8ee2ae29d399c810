"""What the model said of each labelled clip, as far as the figures need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nonlocal_video.inference.prediction import Failure, Outcome, ScoredLabel

TOP_K = 5


@dataclass(frozen=True)
class Truth:
    """What a clip shows."""

    label: str
    """The model's name for it."""
    index: int
    group: str | None


@dataclass(frozen=True)
class Answer:
    """The model's likeliest classes for one clip and the place of the true one; or why there are none."""

    path: str
    truth: Truth
    top: tuple[ScoredLabel, ...]
    """At most `TOP_K`, best first; none for a clip that cannot be read."""
    true_rank: int | None
    """Place of the true class among all classes by score, from 1; equal scores in label order."""
    true_score: float | None
    error: tuple[str, str] | None = None
    """Code and message."""

    @property
    def readable(self) -> bool:
        return self.error is None

    @property
    def right(self) -> bool:
        return self.true_rank == 1

    @property
    def regret(self) -> float:
        """How much likelier than the true class the answer seemed: 0 if it is right, 1 for the worst mistake."""
        return 0.0 if self.true_score is None else self.top[0].score - self.true_score


def to_row(outcome: Outcome, truth: Truth) -> dict[str, Any]:
    """A row of `classify --json` with what is true beside it."""
    rank = score = None
    if not isinstance(outcome, Failure):
        order = np.argsort(-outcome.scores, kind="stable")  # as in `Prediction.top`
        rank = int(np.flatnonzero(order == truth.index)[0]) + 1
        score = float(outcome.scores[truth.index])
    return outcome.to_row(TOP_K) | {"label": truth.label, "true_rank": rank, "true_score": score}


def from_row(row: Mapping[str, Any], truth: Truth) -> Answer:
    """The answer in a row of `to_row`."""
    return Answer(
        path=row["path"],
        truth=truth,
        top=tuple(ScoredLabel(**scored) for scored in row["top"]),
        true_rank=row["true_rank"],
        true_score=row["true_score"],
        error=(row["error"]["code"], row["error"]["message"]) if row["error"] else None,
    )
