"""Accuracy, calibration and confusion, with bootstrap intervals over groups of clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.evaluation.answers import TOP_K, Answer

CONFIDENCE = 0.95
RESAMPLES = 2000
NUM_BINS = 15
"""Number of equal-width bins of the calibration error, as in Guo et al., ICML 2017."""

Statistic = Callable[[NDArray[np.float64]], float]
"""Function from clip weights, (N,), to a value."""


@dataclass(frozen=True)
class Figure:
    """An accuracy, from 0 to 1."""

    value: float
    """Accuracy over the readable clips."""
    interval: tuple[float, float] | None
    """95% bootstrap interval over groups; None for a single group."""
    unreadable_as_wrong: float
    """Accuracy over all clips, counting unreadable ones as wrong."""


@dataclass(frozen=True, repr=False)
class Metrics:
    """Metrics of a model on labelled clips."""

    accuracies: dict[str, Figure]
    """Accuracies `top1`, `top5` (`topK` for a model with K < 5 classes) and `mean_class`, the mean of the per-class
    accuracies over classes with clips."""
    calibration_error: float
    """Expected calibration error of the top class, from 0 to 1: the mean gap between confidence and accuracy in
    `NUM_BINS` bins of confidence (Guo et al., ICML 2017, eq. 3)."""
    mean_confidence: float
    """Mean score of the top class; above the top-1 accuracy, the model is overconfident."""
    confusion: NDArray[np.int64]
    """Confusion matrix, (classes, classes): true class by top class, in clips."""
    num_groups: int
    """Number of independent groups."""


def compute_metrics(answers: Sequence[Answer], num_classes: int, *, seed: int = 0) -> Metrics | None:
    """Compute the metrics of all answers; None if no clip is readable.

    Args:
        answers: One answer per clip, including unreadable ones.
        num_classes: Number of classes of the model.
        seed: Seed of the bootstrap.
    """
    readable = [answer for answer in answers if answer.readable]
    if not readable:
        return None
    truth = np.array([answer.truth.index for answer in readable])
    answered = np.array([answer.top[0].index for answer in readable])
    confidence = np.array([answer.top[0].score for answer in readable])
    ranks = np.array([answer.true_rank for answer in readable])
    groups = group_numbers([answer.truth.group for answer in readable])

    k = min(TOP_K, num_classes)
    right, in_top_k = (ranks == 1).astype(float), (ranks <= k).astype(float)
    all_truth = np.array([answer.truth.index for answer in answers])
    right_of_all = np.array([answer.right for answer in answers], float)
    intervals = bootstrap(
        {
            "top1": lambda weights: float(np.average(right, weights=weights)),
            f"top{k}": lambda weights: float(np.average(in_top_k, weights=weights)),
            "mean_class": lambda weights: _mean_class(truth, right, num_classes, weights),
        },
        groups,
        seed=seed,
    )
    values = {
        "top1": float(np.mean(answered == truth)),
        f"top{k}": float(in_top_k.mean()),
        "mean_class": mean_class_accuracy(answered, truth, num_classes),
    }
    share_readable = len(readable) / len(answers)
    with_unreadable = {
        "top1": values["top1"] * share_readable,
        f"top{k}": values[f"top{k}"] * share_readable,
        "mean_class": _mean_class(all_truth, right_of_all, num_classes, np.ones(len(answers))),
    }
    return Metrics(
        accuracies={name: Figure(values[name], intervals[name], with_unreadable[name]) for name in values},
        calibration_error=calibration_error(confidence, right),
        mean_confidence=float(confidence.mean()),
        confusion=confusion_matrix(answered, truth, num_classes),
        num_groups=len(np.unique(groups)),
    )


def confusion_matrix(answered: NDArray[np.int64], truth: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Count clips by true class (rows) and answer (columns): (N,) and (N,) -> (num_classes, num_classes)."""
    cells = np.bincount(truth * num_classes + answered, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def mean_class_accuracy(answered: NDArray[np.int64], truth: NDArray[np.int64], num_classes: int) -> float:
    """Return the mean of the per-class accuracies over the classes in `truth`, (N,)."""
    return _mean_class(truth, (answered == truth).astype(float), num_classes, np.ones(len(truth)))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return the expected calibration error of confidences, (N,), in answers that are right (1) or wrong (0).

    Bin i holds the confidences from i / NUM_BINS up to, but without, (i + 1) / NUM_BINS; the last one includes 1.
    """
    edges = np.linspace(0, 1, NUM_BINS + 1)
    # A confidence above 1 by rounding belongs to the last bin.
    confidence = np.minimum(confidence, 1.0)
    bins = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, NUM_BINS - 1)
    gap_of_bin = np.bincount(bins, confidence - right, NUM_BINS)
    return float(np.abs(gap_of_bin).sum() / len(confidence))


def group_numbers(groups: Sequence[str | None]) -> NDArray[np.int64]:
    """Number the groups from 0, (N,); a clip without a group is a group of its own."""
    numbers: dict[tuple[str | None, int], int] = {}
    keys = [(group, -1 if group is not None else position) for position, group in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def bootstrap(
    statistics: Mapping[str, Statistic], groups: NDArray[np.int64], *, seed: int, resamples: int = RESAMPLES
) -> dict[str, tuple[float, float] | None]:
    """Return the 95% percentile interval of each statistic, resampling whole groups with replacement.

    Clips of one group are correlated, so resampling single clips would give intervals that are too narrow.

    Args:
        statistics: Functions of the number of times that each clip was drawn, (N,).
        groups: Group numbers from 0, (N,).
        seed: Seed of the resamples, which are the same for all statistics.
        resamples: Number of resamples.

    Returns:
        Interval by name; None for each if there is a single group.
    """
    num_groups = int(groups.max()) + 1
    if num_groups == 1:
        return dict.fromkeys(statistics)
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in statistics}
    for _ in range(resamples):
        times = np.bincount(random.integers(0, num_groups, num_groups), minlength=num_groups)
        weights = times[groups].astype(float)
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    tail = (1 - CONFIDENCE) / 2
    return {name: _ends(np.quantile(values, [tail, 1 - tail])) for name, values in drawn.items()}


def _ends(quantiles: NDArray[np.float64]) -> tuple[float, float]:
    return float(quantiles[0]), float(quantiles[1])


def _mean_class(
    truth: NDArray[np.int64], right: NDArray[np.float64], num_classes: int, weights: NDArray[np.float64]
) -> float:
    """Return the mean class accuracy of weighted clips, over the classes with any weight."""
    of_class = np.bincount(truth, weights, num_classes)
    right_of_class = np.bincount(truth, weights * right, num_classes)
    present = of_class > 0
    return float((right_of_class[present] / of_class[present]).mean())
