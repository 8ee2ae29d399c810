"""Training on a few examples: the head that groups left out prefer, its scale, and when a clip is unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.models.taught import TaughtClasses, damped, encoded, likeness, rooted
from nonlocal_video.teaching.heads import HEADS, HeadName, LinearHead, TrainingRows, class_means, fit_head
from nonlocal_video.teaching.prior import PRIOR_SCALES, prior_thresholds

MAX_PARTS = 20
"""Groups are left out one at a time, or in so many parts if there are more."""
ACCEPTED = 0.95
"""Share of known examples, left out, that the threshold accepts."""
DAMPED_DIRECTIONS = 16
"""Largest number of directions in which examples of one class differ that are damped in likeness."""
FORMER_DIRECTIONS = 32
"""Number of directions of the former head that are damped."""
FORMER_CLASSES = 100
"""Number of classes from which a former head is taken to be a general one."""
SMALLEST_MEAN = 0.1
"""What is added to each feature's mean before the scale is taken of it, as a fraction of the mean of all features."""
_UNDAMPED = 0.01
"""Variance that is not damped, as a fraction of the variance within classes."""
_SCALES = np.geomspace(1.0, 300.0, 80)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class TaughtExamples:
    """Features of the windows of E examples of K classes.

    Attributes:
        features: (V, C) of all windows, as the network gives them.
        example_of: (V,) index of each window's example.
        labels: Indices of each example's classes; none for `none of these`.
        groups: (E,) number of each example's group.
        num_classes: K.
    """

    features: Array
    example_of: NDArray[np.int64]
    labels: Sequence[tuple[int, ...]]
    groups: NDArray[np.int64]
    num_classes: int

    @property
    def known(self) -> NDArray[np.int64]:
        """Indices of the examples that show a class."""
        return np.array([index for index, labels in enumerate(self.labels) if labels], np.int64)

    def for_heads(self, scales: Array, former_head: Array) -> TaughtExamples:
        """Return them with the features that heads are fitted to: scaled, damped, of length 1."""
        return replace(self, features=damped(self.features * scales, former_head))

    def for_likeness(self, former_head: Array) -> TaughtExamples:
        """Return them with the features that likeness compares: their roots, damped, of length 1."""
        return replace(self, features=damped(rooted(self.features), former_head))

    def scales(self, examples: NDArray[np.int64]) -> Array:
        """Return the factor of each feature by which some of the examples say that it counts, (C,).

        It is 1 over the root of the feature's mean, in size: to first order the feature's root, which keeps few large
        features from deciding, and the head stays linear.
        """
        shown = sorted({label for example in examples.tolist() for label in self.labels[example]})
        rows = _without_missing(self, examples, shown)
        sizes = rows.balanced @ np.abs(rows.features)
        return np.asarray(1.0 / np.sqrt(np.maximum(sizes + SMALLEST_MEAN * sizes.mean(), 1e-12)))

    def means(self) -> Array:
        """Return the mean of each example's windows: (E, C)."""
        return np.stack([self.features[self.example_of == index].mean(axis=0) for index in range(len(self.labels))])

    def rows(self, examples: NDArray[np.int64]) -> TrainingRows:
        """Return the rows to fit heads to, of some of the examples that show a class."""
        features, classes, weights = [], [], []
        for example in examples.tolist():
            windows = self.features[self.example_of == example]
            for label in self.labels[example]:
                features.append(windows)
                classes.append(np.full(len(windows), label))
                weights.append(np.full(len(windows), 1.0 / len(windows) / len(self.labels[example])))
        return TrainingRows(
            np.concatenate(features), np.concatenate(classes), np.concatenate(weights), self.num_classes
        )


@dataclass(frozen=True)
class LeftOut:
    """Answer for each example by what the other groups teach; NaN where a class has no other group."""

    logits: Mapping[HeadName, Array]
    """(E, K) of each head."""
    likeness: Array
    """(E,) of an example by itself."""
    folder_likeness: Array
    """(E,) less the mean of all examples."""

    def right(self, head: HeadName, labels: Sequence[tuple[int, ...]]) -> Array:
        """Return (E,) 1 where a head's answer is one of the example's classes, 0 where not, NaN where unmeasured."""
        answers = self.answers(head)
        found = [float(answer in labels[example]) for example, answer in enumerate(answers.tolist())]
        return np.where(self.measured, found, np.nan)

    def answers(self, head: HeadName) -> NDArray[np.int64]:
        """Return (E,) the index of each answer; 0 where unmeasured."""
        return np.nan_to_num(self.logits[head], nan=0.0).argmax(axis=1)

    def probabilities(self, head: HeadName, scale: float) -> Array:
        """Return (E, K) the softmax of a head's logits times a factor; NaN where unmeasured."""
        scaled = scale * self.logits[head]
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(E,) whether each example could be left out."""
        return np.isfinite(self.likeness)


@dataclass(frozen=True)
class Lesson:
    """Everything that the examples taught."""

    head: HeadName
    scale: float
    """Factor that calibrates the head's logits."""
    linear: LinearHead
    """Head for the features of `TaughtExamples.for_heads`; its softmax is calibrated."""
    scales: Array
    """(C,) factors of the features that it is for."""
    accuracies: Mapping[HeadName, float | None]
    """Mean class accuracy of each head on groups left out; None if nothing could be."""
    left_out: LeftOut
    classes: TaughtClasses
    threshold_from: str
    """`examples` left out; where none could be, `background` windows and examples of other classes, or these alone."""


def teach_features(
    examples: TaughtExamples,
    *,
    former_head: Array | None = None,
    background: Array | None = None,
    heads: Sequence[HeadName] = HEADS,
) -> Lesson:
    """Fit and choose a head, and find when a clip is unknown.

    Args:
        examples: At least one of every class, and two classes.
        former_head: (R, C) first damping; None damps nothing.
        background: (B, C) features of unrelated windows, for where nothing can be left out.
        heads: Kinds of head to choose from; the first is taken unless another one is better.
    """
    if former_head is None:
        former_head = np.empty((0, examples.features.shape[1]))
    left_out = leave_groups_out(examples, heads, former_head=former_head)
    accuracies = {name: _mean_class_accuracy(left_out.right(name, examples.labels), examples) for name in heads}
    head = _preferred(examples, left_out)
    scales = examples.scales(examples.known)
    linear = fit_head(head, examples.for_heads(scales, former_head).rows(examples.known))
    alike = examples.for_likeness(former_head)
    rows = alike.rows(examples.known)
    measured = left_out.measured
    if measured.any():
        factor, _ = _calibrated(
            left_out.logits[head][measured], [examples.labels[i] for i in np.flatnonzero(measured).tolist()]
        )
        threshold = _lower_quantile(left_out.likeness[measured])
        folder_threshold = _lower_quantile(left_out.folder_likeness[measured])
    else:
        factor, (threshold, folder_threshold) = PRIOR_SCALES[head], prior_thresholds(rows, former_head, background)
    nones = [index for index, labels in enumerate(examples.labels) if not labels]
    classes = TaughtClasses(
        num_features=examples.features.shape[1],
        rooted_means=encoded(class_means(rows)),
        none_examples=encoded(alike.means()[nones]),
        former_head=encoded(former_head),
        within_classes=encoded(damping(rows)),
        threshold=threshold,
        folder_threshold=folder_threshold,
    )
    kind = "examples" if measured.any() else "other classes" if background is None else "background"
    return Lesson(head, factor, linear.scaled(factor), scales, accuracies, left_out, classes, kind)


def leave_groups_out(
    examples: TaughtExamples, heads: Sequence[HeadName] = HEADS, *, former_head: Array | None = None
) -> LeftOut:
    """Answer for every example of a class by what the other groups teach."""
    if former_head is None:
        former_head = np.empty((0, examples.features.shape[1]))
    known, num = examples.known, len(examples.labels)
    logits = {name: np.full((num, examples.num_classes), np.nan) for name in heads}
    alone, folder = np.full(num, np.nan), np.full(num, np.nan)
    alike = examples.for_likeness(former_head)
    means = alike.means()
    all_means = class_means(alike.rows(known))
    parts = _parts(examples)
    for part in np.unique(parts[known]).tolist():
        held_out, rest = known[parts[known] == part], known[parts[known] != part]
        left = sorted({label for example in rest.tolist() for label in examples.labels[example]})
        held_out = np.array([i for i in held_out.tolist() if set(examples.labels[i]) <= set(left)], np.int64)
        if len(left) < 2 or not len(held_out):
            continue
        scaled = examples.for_heads(examples.scales(rest), former_head)
        for_heads, asked = _without_missing(scaled, rest, left), scaled.means()[held_out]
        for name in heads:
            logits[name][held_out] = -np.inf
            logits[name][np.ix_(held_out, left)] = fit_head(name, for_heads)(asked)
        rows = _without_missing(alike, rest, left)
        classes, directions = class_means(rows), damping(rows)
        nones = np.empty((0, means.shape[1]))
        alone[held_out] = likeness(means[held_out], classes, nones, directions).value
        centred = classes - classes.mean(axis=0)
        folder[held_out] = likeness(means[held_out] - all_means.mean(axis=0), centred, nones, directions).value
    return LeftOut(logits, alone, folder)


def damping(rows: TrainingRows) -> Array:
    """Return the directions in which rows of one class differ most, with how much they are damped: (R, C).

    x - x A^T A is x (S / s + 1)^(-1/2) for the covariance S within classes, restricted to its largest directions, with
    s a hundredth of its trace.
    """
    residuals = (rows.features - class_means(rows)[rows.classes]) * np.sqrt(rows.balanced)[:, None]
    _, singular, directions = np.linalg.svd(residuals, full_matrices=False)
    variances, total = singular[:DAMPED_DIRECTIONS] ** 2, float((singular**2).sum())
    if total < 1e-9:
        return np.empty((0, rows.features.shape[1]))
    kept = variances > 1e-6 * total
    shares = 1.0 - np.sqrt(_UNDAMPED * total / (_UNDAMPED * total + variances[kept]))
    return np.asarray(np.sqrt(shares)[:, None] * directions[:DAMPED_DIRECTIONS][kept])


def damping_of_head(weight: Array) -> Array:
    """Return the directions that a head looks at most, with how much they are damped: (R, C).

    New classes differ from each other where the former ones do not. The shares are s / (s + mean s) for the largest
    singular values s of the head's weights less their mean.

    Args:
        weight: (K, C); R is 0 for a head of fewer than `FORMER_CLASSES` classes, which may be like the new ones.
    """
    if len(weight) < FORMER_CLASSES:
        return np.empty((0, weight.shape[1]))
    _, singular, directions = np.linalg.svd(weight - weight.mean(axis=0), full_matrices=False)
    largest = singular[:FORMER_DIRECTIONS]
    shares = largest / (largest + singular[:-1].mean())
    return np.asarray(np.sqrt(shares)[:, None] * directions[:FORMER_DIRECTIONS])


def _parts(examples: TaughtExamples) -> NDArray[np.int64]:
    """Return the part of each example: its group, or one of `MAX_PARTS` unions of groups that keep classes apart."""
    groups = np.unique(examples.groups)
    if len(groups) <= MAX_PARTS:
        return examples.groups
    first_label = {
        group: min(examples.labels[i] for i in np.flatnonzero(examples.groups == group).tolist())
        for group in groups.tolist()
    }
    ordered = sorted(groups.tolist(), key=lambda group: (first_label[group], group))
    part_of = {group: position % MAX_PARTS for position, group in enumerate(ordered)}
    return np.array([part_of[group] for group in examples.groups.tolist()], np.int64)


def _without_missing(examples: TaughtExamples, chosen: NDArray[np.int64], left: Sequence[int]) -> TrainingRows:
    """Return the rows of some examples, with classes numbered as in `left`."""
    new = {label: position for position, label in enumerate(left)}
    labels = [tuple(new[label] for label in labels if label in new) for labels in examples.labels]
    return TaughtExamples(examples.features, examples.example_of, labels, examples.groups, len(left)).rows(chosen)


def _mean_class_accuracy(right: Array, examples: TaughtExamples) -> float | None:
    of_class = [
        [right[i] for i, labels in enumerate(examples.labels) if label in labels and np.isfinite(right[i])]
        for label in range(examples.num_classes)
    ]
    means = [float(np.mean(values)) for values in of_class if values]
    return float(np.mean(means)) if means else None


def _preferred(examples: TaughtExamples, left_out: LeftOut) -> HeadName:
    """Return the first head, or the one that answers best for groups left out if that is more than chance.

    Best is the smallest loss of calibrated answers, which says more of a few examples than how many are right. It has
    to be smaller than the first head's by more than two standard errors of the difference.
    """
    measured = left_out.measured
    labels = [examples.labels[index] for index in np.flatnonzero(measured).tolist()]
    losses = {name: _calibrated(logits[measured], labels)[1] for name, logits in left_out.logits.items()}
    first = next(iter(losses))
    best = min(losses, key=lambda name: float(losses[name].sum()))
    gains = losses[first] - losses[best]
    return best if len(gains) > 1 and gains.mean() > 2 * gains.std(ddof=1) / math.sqrt(len(gains)) else first


def _calibrated(logits: Array, labels: Sequence[tuple[int, ...]]) -> tuple[float, Array]:
    """Return the factor of logits (E, K) at which their softmax is the likeliest, and the losses (E,) there.

    One answer's worth of the truth is spread over all classes, or a few right answers would ask for certainty. A class
    that could not be answered has the logit -inf.
    """
    if not len(logits):
        return 1.0, np.empty(0)
    possible, num = np.isfinite(logits), len(logits)
    truth = possible / possible.sum(axis=1, keepdims=True) / (num + 1)
    for row, classes in enumerate(labels):
        truth[row, list(classes)] += num / (num + 1) / len(classes)
    below = np.where(possible, logits - np.where(possible, logits, -np.inf).max(axis=1, keepdims=True), 0.0)

    def losses(factor: float) -> Array:
        log_sum = np.log(np.where(possible, np.exp(factor * below), 0.0).sum(axis=1))
        return np.asarray(log_sum - (truth * factor * below).sum(axis=1))

    best = float(min(_SCALES, key=lambda factor: float(losses(factor).sum())))
    return best, losses(best)


def _lower_quantile(values: Array) -> float:
    """Return a value that `ACCEPTED` of the values are at least."""
    return float(np.quantile(values, 1.0 - ACCEPTED, method="lower"))
