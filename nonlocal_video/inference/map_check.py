"""Faithfulness checks of maps: whether the cells that a map ranks first carry the score of the class.

The curves and perturbations are those of `attention.faithfulness`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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
from nonlocal_video.inference.predictor import Predictor

QUICK_FRACTION = 0.2
"""Share of the clip that a quick check perturbs."""
QUICK_DRAWS = 4
"""Number of displaced maps in a quick check, if the map has as many other positions."""
_BASELINE_IN_WORDS: dict[Baseline, str] = {"blur": "blurred", "mean_colour": "in their frame's mean colour"}


@dataclass(frozen=True)
class Faithfulness:
    """Curves of a map and of its controls, for one class of one view."""

    label: str
    """Name of the class."""
    class_index: int
    """Index of the class."""
    baseline: Baseline
    """Content of perturbed cells."""
    map: Curves
    """Curves of the map."""
    displaced: tuple[Curves, ...]
    """Curves of the displaced map, one pair per draw."""
    over_time: Curves
    """Curves of the map averaged over time."""
    centre: Curves
    """Curves of a ranking that starts in the middle of the frame, without the map."""


@dataclass(frozen=True)
class QuickCheck:
    """Probability of a class without the cells that a map ranks first, and without displaced ones."""

    label: str
    """Name of the class."""
    class_index: int
    """Index of the class."""
    baseline: Baseline
    """Content of perturbed cells."""
    fraction: float
    """Perturbed share of the clip, from 0 to 1."""
    score: float
    """Score of the unperturbed clip."""
    without_strongest: float
    """Score without the strongest cells of the map."""
    without_displaced: tuple[float, ...]
    """Score without the same shape displaced, one per draw."""

    @property
    def mean_without_displaced(self) -> float:
        """Mean of `without_displaced`."""
        return float(np.mean(self.without_displaced))

    @property
    def in_words(self) -> str:
        """Result and verdict for this clip, with two digits."""
        draws = len(self.without_displaced)
        before, strongest, elsewhere = (
            round(score, 2) for score in (self.score, self.without_strongest, self.mean_without_displaced)
        )
        measured = (
            f"with the strongest {self.fraction:.0%} of the cells {_BASELINE_IN_WORDS[self.baseline]}, "
            f'"{self.label}" {_change(before, strongest)}; with the same shape elsewhere ({draws} '
            f"draw{'s' if draws > 1 else ''}) it {_change(before, elsewhere)} on average."
        )
        as_low = sum(round(score, 2) <= strongest for score in self.without_displaced)
        if before == strongest == elsewhere:
            verdict = "Too little was removed to tell them apart."
        elif strongest >= elsewhere:
            verdict = "In this clip, the strongest cells matter no more than the same shape elsewhere."
        elif as_low:
            verdict = f"{as_low} of the {draws} brought it as low as the strongest cells did."
        else:
            verdict = "No displaced shape brought it as low."
        return f"{measured} {verdict}"


def class_score(predictor: Predictor, class_index: int) -> Score:
    """Return a function for the probability of a class, computed as in `classify`, with windows and averaging."""

    def score(clips: torch.Tensor) -> Sequence[float]:
        logits = predictor.forward(clips)  # (B, P, classes)
        return [float(average_scores(predictor.card, clip_logits)[class_index]) for clip_logits in logits]

    return score


def check_faithfulness(
    predictor: Predictor,
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
    """Compute deletion and insertion curves of a map and of its controls.

    It runs 2 views through the network, and 2 (3 + draws) for each fraction between 0 and 1.

    Args:
        predictor: Predictor that made the explanation.
        explanation: Result of `predictor.explain_all`, whose view is perturbed.
        maps: Map of this explanation, by any method.
        label: Class whose probability is measured; None is the top class.
        baseline: Content of perturbed cells. Do not rely on a result that holds for only one of them.
        fractions: Shares of the cells, ascending.
        draws: Number of displaced maps.
        seed: Seed of the displacements.
        batch_size: Clips per forward pass.
        on_pass: Called with the number of clips after each forward pass.

    Raises:
        UsageError: The map is constant, or an argument is invalid.
    """
    class_index = class_of(explanation, label)
    perturbations = perturbation(
        predictor, explanation, class_index, baseline=baseline, batch_size=batch_size, on_pass=on_pass
    )
    flat, flat_grid = mean_over_time(maps.cells, maps.grid)
    return Faithfulness(
        label=explanation.prediction.labels[class_index],
        class_index=class_index,
        baseline=baseline,
        map=perturbations.curves(upsample(maps.cells, maps.grid, perturbations.size), fractions),
        displaced=tuple(
            perturbations.curves(values, fractions) for values in _displaced_maps(maps, perturbations, draws, seed)
        ),
        over_time=perturbations.curves(upsample(flat, flat_grid, perturbations.size), fractions),
        centre=perturbations.curves(centre_prior(perturbations.size), fractions),
    )


def quick_check(
    predictor: Predictor,
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
    """Compute one point of the deletion curve, for a map and displaced ones, in 2 + draws forward passes.

    The arguments are those of `check_faithfulness`; `fraction` is the perturbed share of the clip, and the default of
    `draws` is `quick_draws`.
    """
    draws = quick_draws(maps) if draws is None else draws
    class_index = class_of(explanation, label)
    perturbations = perturbation(predictor, explanation, class_index, baseline=baseline, on_pass=on_pass)
    (without_strongest,) = perturbations.scores_without([upsample(maps.cells, maps.grid, perturbations.size)], fraction)
    return QuickCheck(
        label=explanation.prediction.labels[class_index],
        class_index=class_index,
        baseline=baseline,
        fraction=fraction,
        score=perturbations.own_score,
        without_strongest=without_strongest,
        without_displaced=tuple(
            perturbations.scores_without(_displaced_maps(maps, perturbations, draws, seed), fraction)
        ),
    )


def quick_draws(maps: AttentionMaps) -> int:
    """Return the number of displaced maps in a quick check: `QUICK_DRAWS`, or fewer for a tiny map."""
    return min(QUICK_DRAWS, maps.cells.size - 1)


def perturbation(
    predictor: Predictor,
    explanation: Explanation,
    class_index: int,
    *,
    baseline: Baseline = "blur",
    batch_size: int = 1,
    on_pass: Callable[[int], None] = lambda clips: None,
) -> Perturbation:
    """Prepare the view of an explanation for perturbations."""
    inputs = explanation.clip.network_input(0, 0)
    return Perturbation(
        class_score(predictor, class_index),
        inputs,
        make_baseline(inputs, baseline),
        batch_size=batch_size,
        on_pass=on_pass,
    )


def class_of(explanation: Explanation, label: str | int | None) -> int:
    """Return the index of a class by name or index; None is the top class."""
    labels = explanation.prediction.labels
    if label is None:
        return explanation.prediction.top(1)[0].index
    index = labels.index(label) if label in labels else label
    if not isinstance(index, int) or not 0 <= index < len(labels):
        raise UsageError(f"label = {label!r} is not a class of model {explanation.prediction.model!r}.")
    return index


def _displaced_maps(
    maps: AttentionMaps, perturbations: Perturbation, draws: int, seed: int
) -> Iterator[NDArray[np.float32]]:
    """Yield displaced maps at input resolution one by one, as each is as large as a channel of the clip."""
    return (upsample(cells, maps.grid, perturbations.size) for cells in displaced(maps.cells, draws, seed))


def _change(before: float, after: float) -> str:
    """Return a change in words: `falls from 0.86 to 0.12`."""
    if before == after:
        return f"stays at {after:.2f}"
    return f"{'falls' if after < before else 'rises'} from {before:.2f} to {after:.2f}"
