"""Rates at which a taught model says that it does not know a clip, and whether it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nonlocal_video.evaluation.answers import Answer
from nonlocal_video.evaluation.metrics import bootstrap, group_numbers


@dataclass(frozen=True)
class Share:
    """A share of clips, from 0 to 1."""

    value: float
    interval: tuple[float, float] | None
    """95% bootstrap interval over groups; None for a single group."""

    def in_percent(self) -> dict[str, Any]:
        """Return it as in `summary.json`."""
        ends = None if self.interval is None else [round(100 * end, 3) for end in self.interval]
        return {"value": round(100 * self.value, 3), "interval_95": ends}


@dataclass(frozen=True)
class UnknownFigures:
    """Results for the clips of `none of these`, and for the others."""

    num_none: int
    """Number of readable clips of `none of these`."""
    none_as_unknown: Share | None
    """Share of these that are unknown to the model, as they should be; None without such clips."""
    known_as_unknown: Share | None
    """Share of the clips of its classes that are unknown to it, too; None without such clips."""
    known_and_right: Share | None
    """Share of them whose top class is right and that are not unknown."""

    def in_percent(self) -> dict[str, Any]:
        """Return them as in `summary.json`."""
        shares = {
            "none_of_these_as_unknown_percent": self.none_as_unknown,
            "classes_as_unknown_percent": self.known_as_unknown,
            "right_and_known_percent": self.known_and_right,
        }
        return {
            "none_of_these_clips": self.num_none,
            **{name: None if share is None else share.in_percent() for name, share in shares.items()},
        }

    def sentences(self) -> list[str]:
        """Return them in words."""
        words = {
            f"Unknown of {self.num_none} clips of none of these": self.none_as_unknown,
            "Unknown of the clips of its classes": self.known_as_unknown,
            "Right and not unknown": self.known_and_right,
        }
        return [f"{what}: {_in_words(share)}" for what, share in words.items() if share is not None]


def unknown_figures(answers: Sequence[Answer], *, seed: int = 0) -> UnknownFigures | None:
    """Measure the answers of a taught model; None if no clip is readable or the model was not taught.

    Args:
        answers: One a clip.
        seed: Seed of the bootstrap.
    """
    judged = [answer for answer in answers if answer.readable and answer.unknown is not None]
    if not judged:
        return None
    nones = [answer for answer in judged if answer.truth.is_none]
    known = [answer for answer in judged if not answer.truth.is_none]
    return UnknownFigures(
        len(nones),
        _share(nones, [bool(answer.unknown) for answer in nones], seed),
        _share(known, [bool(answer.unknown) for answer in known], seed),
        _share(known, [answer.right and not answer.unknown for answer in known], seed),
    )


def _share(answers: Sequence[Answer], counts: Sequence[bool], seed: int) -> Share | None:
    if not answers:
        return None
    values = np.asarray(counts, np.float64)
    groups = group_numbers([answer.truth.group for answer in answers])
    found = bootstrap({"share": lambda weights: float(np.average(values, weights=weights))}, groups, seed=seed)
    return Share(float(values.mean()), found["share"])


def _in_words(share: Share) -> str:
    between = "" if share.interval is None else " (95% interval {:.1%} to {:.1%})".format(*share.interval)
    return f"{share.value:.1%}{between}"
