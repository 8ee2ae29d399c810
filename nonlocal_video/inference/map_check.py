"""Whether the places that a look's map ranks first carry the class's score, by `attention.faithfulness`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.attention.faithfulness import (
    FRACTIONS,
    Baseline,
    Curves,
    Perturbation,
    Score,
    centre_prior,
    displaced,
    make_baseline,
    mean_over_time,
    upsample,
)
from nonlocal_video.attention.maps import AttentionMaps
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.aggregation import average_scores
from nonlocal_video.inference.explanation import Explanation

if TYPE_CHECKING:
    from nonlocal_video.inference.recognizer import Recognizer

QUICK_FRACTION = 0.2
"""How much of the clip a quick check takes away."""
QUICK_DRAWS = 4
"""Displaced maps of a quick check, where the map has as many other places."""
_TAKEN_AWAY: dict[Baseline, str] = {"blur": "blurred", "mean_colour": "in their frame's mean colour"}


@dataclass(frozen=True)
class Faithfulness:
    """The curves of a map and of its controls, for one class of one view."""

    label: str
    class_index: int
    baseline: Baseline
    map: Curves
    displaced: tuple[Curves, ...]
    """The same map elsewhere, one pair of curves a draw."""
    over_time: Curves
    """The map averaged over time."""
    centre: Curves
    """Nothing of the map: the middle of the frame first."""


@dataclass(frozen=True)
class QuickCheck:
    """What is left of a class's probability without the places that a map ranks first, and without others."""

    label: str
    class_index: int
    baseline: Baseline
    fraction: float
    """How much of the clip was taken away, 0 to 1."""
    score: float
    """With nothing taken away."""
    without_strongest: float
    without_displaced: tuple[float, ...]
    """The same shape elsewhere, one number a draw."""

    @property
    def mean_without_displaced(self) -> float:
        return float(np.mean(self.without_displaced))

    @property
    def in_words(self) -> str:
        """What was measured, and what it comes to in this clip, as far as the two digits that are shown tell."""
        draws = len(self.without_displaced)
        before, strongest, elsewhere = (
            round(score, 2) for score in (self.score, self.without_strongest, self.mean_without_displaced)
        )
        measured = (
            f"with the strongest {self.fraction:.0%} of the places {_TAKEN_AWAY[self.baseline]}, "
            f'"{self.label}" {_change(before, strongest)}; with the same shape elsewhere ({draws} '
            f"draw{'s' if draws > 1 else ''}) it {_change(before, elsewhere)} on average."
        )
        as_low = sum(round(score, 2) <= strongest for score in self.without_displaced)
        if before == strongest == elsewhere:
            verdict = "Too little was taken away to tell them apart."
        elif strongest >= elsewhere:
            verdict = "In this clip the map's places matter no more than the same shape elsewhere."
        elif as_low:
            verdict = f"{as_low} of the {draws} brought it as low as the map's places did."
        else:
            verdict = "Nowhere else did it get as low."
        return f"{measured} {verdict}"


def class_score(recognizer: Recognizer, class_index: int) -> Score:
    """The probability of a class as `classify` gives it: the recogniser's own forward pass, windows and averaging."""

    def score(clips: torch.Tensor) -> Sequence[float]:
        logits = recognizer.forward(clips)  # (B, P, classes)
        return [float(average_scores(recognizer.card, of_clip)[class_index]) for of_clip in logits]

    return score


def check_faithfulness(
    recognizer: Recognizer,
    explanation: Explanation,
    maps: AttentionMaps,
    *,
    label: str | int | None = None,
    baseline: Baseline = "blur",
    fractions: Sequence[float] = FRACTIONS,
    draws: int = 4,
    seed: int = 0,
    batch_size: int = 1,
    on_pass: Callable[[int], None] = lambda clips: None,
) -> Faithfulness:
    """Deletion and insertion curves of a map beside those of its controls.

    Takes 2 forward passes and 2 (3 + draws) for each fraction between 0 and 1.

    Args:
        recognizer: The one that looked.
        look: What `recognizer.explain_all` gave; its view is what is perturbed.
        maps: Of that look, by any method.
        label: The class whose probability is watched; None is the likeliest.
        baseline: What a place shows when it is taken away. A result that holds for one of them only does not count.
        fractions: Shares of the places, ascending.
        draws: How often the map is displaced.
        seed: Of the displacements.
        batch_size: Clips in one forward pass.
        on_pass: Called with the number of clips after each forward pass.

    Raises:
        UsageError: The map has the same value everywhere, or an argument is not allowed.
    """
    class_index = class_of(explanation, label)
    perturbed = perturbation(
        recognizer, explanation, class_index, baseline=baseline, batch_size=batch_size, on_pass=on_pass
    )
    flat, flat_grid = mean_over_time(maps.cells, maps.grid)
    return Faithfulness(
        label=explanation.prediction.labels[class_index],
        class_index=class_index,
        baseline=baseline,
        map=perturbed.curves(upsample(maps.cells, maps.grid, perturbed.size), fractions),
        displaced=tuple(perturbed.curves(values, fractions) for values in _elsewhere(maps, perturbed, draws, seed)),
        over_time=perturbed.curves(upsample(flat, flat_grid, perturbed.size), fractions),
        centre=perturbed.curves(centre_prior(perturbed.size), fractions),
    )


def quick_check(
    recognizer: Recognizer,
    explanation: Explanation,
    maps: AttentionMaps,
    *,
    label: str | int | None = None,
    baseline: Baseline = "blur",
    fraction: float = QUICK_FRACTION,
    draws: int | None = None,
    seed: int = 0,
    on_pass: Callable[[int], None] = lambda clips: None,
) -> QuickCheck:
    """One point of the deletion curve, for the map and displaced ones, in 2 + draws forward passes.

    Args as for `check_faithfulness`; `fraction` is how much is taken away, and without `draws` it is `quick_draws`.
    """
    draws = quick_draws(maps) if draws is None else draws
    class_index = class_of(explanation, label)
    perturbed = perturbation(recognizer, explanation, class_index, baseline=baseline, on_pass=on_pass)
    (without_strongest,) = perturbed.scores_without([upsample(maps.cells, maps.grid, perturbed.size)], fraction)
    return QuickCheck(
        label=explanation.prediction.labels[class_index],
        class_index=class_index,
        baseline=baseline,
        fraction=fraction,
        score=perturbed.own_score,
        without_strongest=without_strongest,
        without_displaced=tuple(perturbed.scores_without(_elsewhere(maps, perturbed, draws, seed), fraction)),
    )


def quick_draws(maps: AttentionMaps) -> int:
    """How often a quick check displaces a map: `QUICK_DRAWS` times, or as often as there are other places."""
    return min(QUICK_DRAWS, maps.cells.size - 1)


def perturbation(
    recognizer: Recognizer,
    explanation: Explanation,
    class_index: int,
    *,
    baseline: Baseline = "blur",
    batch_size: int = 1,
    on_pass: Callable[[int], None] = lambda clips: None,
) -> Perturbation:
    """The view of a look, ready to have places taken away."""
    inputs = explanation.clip.network_input(0, 0)
    return Perturbation(
        class_score(recognizer, class_index),
        inputs,
        make_baseline(inputs, baseline),
        batch_size=batch_size,
        on_pass=on_pass,
    )


def class_of(explanation: Explanation, label: str | int | None) -> int:
    """Index of a class by its name or index; of the likeliest for None."""
    labels = explanation.prediction.labels
    if label is None:
        return explanation.prediction.top(1)[0].index
    index = labels.index(label) if label in labels else label
    if not isinstance(index, int) or not 0 <= index < len(labels):
        raise UsageError(f"label = {label!r} is not a class of model {explanation.prediction.model!r}.")
    return index


def _elsewhere(maps: AttentionMaps, perturbed: Perturbation, draws: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """The map displaced, on the input's places, one by one: each is as large as a channel of the clip."""
    return (upsample(cells, maps.grid, perturbed.size) for cells in displaced(maps.cells, draws, seed))


def _change(before: float, after: float) -> str:
    """`falls from 0.86 to 0.12`."""
    if before == after:
        return f"stays at {after:.2f}"
    return f"{'falls' if after < before else 'rises'} from {before:.2f} to {after:.2f}"
