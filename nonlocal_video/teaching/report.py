"""Results of teaching: `report.json`, and sentences for the user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.evaluation.metrics import bootstrap
from nonlocal_video.inference.prediction import printable
from nonlocal_video.teaching.examples import Example
from nonlocal_video.teaching.fitting import Lesson

IMBALANCE = 3.0
"""Ratio of examples in the largest and the smallest class from which it is reported."""
_NUM_WORST = 10
_ALIKE = 0.75
"""Median cosine of examples of different classes from which they are said to share a place."""
_Z = 1.959964
"""97.5% point of the normal distribution."""


@dataclass(frozen=True)
class WorstExample:
    """An example that looks like another class when its group is left out."""

    path: str
    labels: tuple[str, ...]
    """Its own classes."""
    looks_like: str
    """The class that was answered."""
    score: float
    """Probability of that class."""
    own_score: float
    """Probability of its own class, the likelier one if it has several."""


@dataclass(frozen=True)
class TeachReport:
    """Results of teaching."""

    accuracy: float | None
    """Share of examples that are right when their group is left out; None where none could be."""
    interval: tuple[float, float] | None
    """95% interval of the accuracy, by groups; None for a single group."""
    num_measured: int
    """Number of examples that could be left out."""
    counts: dict[str, int]
    """Examples of each class."""
    num_examples: int
    num_none: int
    """Examples of `none of these`."""
    head: str
    heads: dict[str, float | None]
    """Mean class accuracy of each kind of head, likewise."""
    threshold: float
    """Likeness below which a clip is unknown."""
    threshold_from: str
    """Origin of the threshold: `examples` left out, `background` windows, or `other classes`."""
    worst: tuple[WorstExample, ...]
    """Wrong ones, the worst first."""
    unreadable: tuple[tuple[str, str], ...]
    """Path and problem of each example that could not be used."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the contents of `report.json`."""
        return {
            "accuracy": self.accuracy,
            "interval": None if self.interval is None else list(self.interval),
            "num_examples": self.num_examples,
            "num_classes": len(self.counts),
            "head": self.head,
            "unknown": {"threshold": self.threshold, "threshold_from": self.threshold_from},
            "worst": [
                {
                    "path": printable(one.path),
                    "labels": list(one.labels),
                    "looks_like": one.looks_like,
                    "score": one.score,
                    "own_score": one.own_score,
                }
                for one in self.worst
            ],
            "num_measured": self.num_measured,
            "num_none_of_these": self.num_none,
            "examples_of_class": self.counts,
            "heads": self.heads,
            "unreadable": [{"path": printable(path), "problem": problem} for path, problem in self.unreadable],
            "notes": list(self.notes),
        }


def make_report(
    examples: Sequence[Example],
    labels: Sequence[str],
    groups: NDArray[np.int64],
    lesson: Lesson,
    *,
    unreadable: Sequence[tuple[str, str]],
    notes: Sequence[str] = (),
    median_cosine: float | None = None,
) -> TeachReport:
    """Make the report.

    Args:
        examples: Usable examples, in the order of the lesson's.
        labels: Classes.
        groups: (E,) number of each example's group.
        lesson: What was taught.
        unreadable: Path and problem of the other examples.
        notes: Sentences on the source.
        median_cosine: Of features of examples of different classes; None if nothing is known of what is usual.
    """
    index_of = {label: index for index, label in enumerate(labels)}
    indices = [tuple(index_of[label] for label in example.labels) for example in examples]
    right = lesson.left_out.right(lesson.head, indices)
    measured = np.isfinite(right)
    counts = Counter(label for example in examples for label in example.labels)
    return TeachReport(
        accuracy=float(right[measured].mean()) if measured.any() else None,
        interval=accuracy_interval(right[measured], groups[measured]) if measured.any() else None,
        num_measured=int(measured.sum()),
        counts={label: counts[label] for label in labels},
        num_examples=len(examples),
        num_none=sum(not example.labels for example in examples),
        head=lesson.head,
        heads={str(name): share for name, share in lesson.accuracies.items()},
        threshold=lesson.classes.threshold,
        threshold_from=lesson.threshold_from,
        worst=_worst(examples, labels, indices, lesson),
        unreadable=tuple(unreadable),
        notes=(*notes, *_notes(examples, labels, counts, measured, lesson, median_cosine)),
    )


def accuracy_interval(right: NDArray[np.float64], groups: NDArray[np.int64]) -> tuple[float, float] | None:
    """Return the 95% interval of a share of right answers; None for a single group.

    By bootstrap over groups. Where all are right or all wrong, which every resample would repeat, it is Wilson's
    interval (1927) for as many answers as there are groups.

    Args:
        right: (N,) 1 or 0.
        groups: (N,) group of each answer.
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    num_groups, share = int(numbers.max()) + 1, float(right.mean())
    if num_groups == 1:
        return None
    if share in (0.0, 1.0):
        other = _Z**2 / (num_groups + _Z**2)
        return (0.0, other) if share == 0.0 else (1.0 - other, 1.0)
    return bootstrap({"accuracy": lambda times: float(np.average(right, weights=times))}, numbers, seed=0)["accuracy"]


def _worst(
    examples: Sequence[Example], labels: Sequence[str], indices: Sequence[tuple[int, ...]], lesson: Lesson
) -> tuple[WorstExample, ...]:
    scores = lesson.left_out.probabilities(lesson.head, lesson.scale)
    found = []
    for number in np.flatnonzero(lesson.left_out.measured).tolist():
        answer = int(scores[number].argmax())
        if answer not in indices[number]:
            own = max(float(scores[number, index]) for index in indices[number])
            example = examples[number]
            found.append(WorstExample(example.path, example.labels, labels[answer], float(scores[number, answer]), own))
    return tuple(sorted(found, key=lambda one: one.own_score - one.score)[:_NUM_WORST])


def _notes(
    examples: Sequence[Example],
    labels: Sequence[str],
    counts: Counter[str],
    measured: NDArray[np.bool_],
    lesson: Lesson,
    median_cosine: float | None,
) -> list[str]:
    notes = []
    known = [example for example in examples if example.labels]
    groups = {example.group for example in known}
    if groups == {None}:
        notes.append(
            "The examples have no groups: if several show the same person or come from the same video, the accuracy is "
            "too high. A CSV with a column 'group' says which belong together."
        )
    elif len(groups) == 1:
        notes.append(
            f"All examples are of one group, {next(iter(groups))!r}: nothing is known of other people or places. "
            f"Examples of other groups make a better model, and its accuracy can be measured."
        )
    if median_cosine is not None and median_cosine > _ALIKE:
        notes.append(
            f"Examples of different classes look very alike (median cosine {median_cosine:.2f}; clips of unrelated "
            f"places have about 0.6): they seem to be of one place. Elsewhere expect less, and ask about a folder of "
            f"clips with --context folder."
        )
    smallest, largest = min(labels, key=lambda label: counts[label]), max(labels, key=lambda label: counts[label])
    if counts[largest] >= IMBALANCE * counts[smallest]:
        notes.append(
            f"Unequal: {largest!r} has {counts[largest]} examples and {smallest!r} {counts[smallest]}. All classes "
            f"weigh the same; more examples of the small ones help the most."
        )
    unmeasured = sorted(
        {
            label
            for example, known_of in zip(examples, measured, strict=True)
            for label in example.labels
            if not known_of
        }
        - {label for example, known_of in zip(examples, measured, strict=True) for label in example.labels if known_of}
    )
    if measured.any() and unmeasured:
        notes.append(
            f"{', '.join(map(repr, unmeasured))}: all examples are of one group, so that leaving it out leaves none. "
            f"The accuracy is that of the other classes."
        )
    if not measured.any():
        notes.append(
            "There is one example (or one group) a class, so that none can be left out: the accuracy is not known, and "
            f"the threshold of 'unknown' is from {lesson.threshold_from}. A second example of each class changes both."
        )
    return notes
