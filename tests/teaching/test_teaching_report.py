"""Teaching's findings about its examples: which look like another class, and what the accuracy cannot tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nonlocal_video.models.taught import damped, likeness, rooted
from nonlocal_video.teaching.examples import Example
from nonlocal_video.teaching.fitting import TaughtExamples, teach_features
from nonlocal_video.teaching.prior import background_features
from nonlocal_video.teaching.report import TeachReport, make_report

NAMES = ("bow", "sit", "wave")
NUM_FEATURES = 40


def report_of(
    labels: Sequence[str], groups: Sequence[str | None], *, shown: Sequence[str] | None = None, cosine: float = 0.6
) -> TeachReport:
    """The report on one window an example, with features around the centre of the class that it shows."""
    random = np.random.default_rng(0)
    centres = random.uniform(size=(len(NAMES), NUM_FEATURES))
    rows = np.stack([centres[NAMES.index(name)] + 0.2 * random.uniform(size=NUM_FEATURES) for name in shown or labels])
    numbers = np.arange(len(labels))
    for number, group in enumerate(groups):
        numbers[number] = groups.index(group) if group is not None else number
    examples = TaughtExamples(
        rows, np.arange(len(labels)), [(NAMES.index(name),) for name in labels], numbers, len(NAMES)
    )
    listed = [Example(f"{number}.mp4", (label,), groups[number]) for number, label in enumerate(labels)]
    lesson = teach_features(examples)
    return make_report(listed, NAMES, numbers, lesson, unreadable=[], median_cosine=cosine)


def test_a_wrong_label_is_the_worst_example() -> None:
    labels = [*NAMES * 4, "bow"]
    report = report_of(labels, [str(number % 5) for number in range(13)], shown=[*NAMES * 4, "wave"])
    worst = report.worst[0]
    assert (worst.path, worst.labels, worst.looks_like) == ("12.mp4", ("bow",), "wave")
    assert worst.own_score < worst.score
    assert report.accuracy == pytest.approx(1 - len(report.worst) / 13)
    assert report.to_json()["worst"][0]["looks_like"] == "wave"


@pytest.mark.parametrize(
    ("labels", "groups", "cosine", "says"),
    [
        ([*NAMES * 3], [None] * 9, 0.6, "The examples have no groups"),
        ([*NAMES * 3], ["ann"] * 9, 0.6, "All examples are of one group, 'ann'"),
        ([*NAMES * 3], ["a", "b", "c"] * 3, 0.8, "look very alike (median cosine 0.80"),
        ([*NAMES * 2, *["sit"] * 4], [*"aaabbbcdef"], 0.6, "Unequal: 'sit' has 6 examples and 'bow' 2."),
        ([*NAMES, "bow", "sit"], [*"aaabb"], 0.6, "'wave': all examples are of one group"),
        ([*NAMES], [*"aaa"], 0.6, "There is one example (or one group) a class"),
    ],
)
def test_what_the_accuracy_cannot_tell_is_said(
    labels: list[str], groups: list[str | None], cosine: float, says: str
) -> None:
    assert [note for note in report_of(labels, groups, cosine=cosine).notes if says in note]


def test_examples_of_several_people_need_no_note() -> None:
    assert report_of([*NAMES * 3], [*"aaabbbccc"]).notes == ()


def test_with_one_example_a_class_background_windows_say_what_is_unknown() -> None:
    background = background_features()
    assert background.ndim == 2
    assert background.shape[1] == 1024  # the default model's
    random = np.random.default_rng(0)
    rows = background[:3] + random.uniform(size=(3, 1024)) * background[:3].mean()
    taught = TaughtExamples(rows, np.arange(3), [(0,), (1,), (2,)], np.arange(3), 3)
    lesson = teach_features(taught, background=background[3:])
    assert lesson.threshold_from == "background"
    means = taught.for_likeness(rows[:0]).means()
    values = likeness(damped(rooted(background[3:]), rows[:0]), means, means[:0], means[:0]).value
    assert (values >= lesson.classes.threshold).mean() <= 0.05 + 1 / len(values)
    assert not lesson.classes.likeness(rows).unknown.any()
