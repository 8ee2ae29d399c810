"""Every figure against a plain restatement; the intervals against what they promise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as torchmetrics
from numpy.typing import NDArray

from nonlocal_video.errors import VideoError
from nonlocal_video.evaluation.answers import Answer, Truth, from_row, to_row
from nonlocal_video.evaluation.metrics import NUM_BINS, bootstrap, calibration_error, compute_metrics, group_numbers
from nonlocal_video.inference.prediction import Failure, Prediction, StageTimings
from nonlocal_video.video.info import VideoInfo

VIDEO = VideoInfo("mp4", "h264", 8, 8, 0, 10, 10.0, 0.0, 1.0, False, "pyav")


def answers_of(
    scores: NDArray[np.float64], truth: Sequence[int], groups: Sequence[str | None] | None = None
) -> list[Answer]:
    """(N, classes) scores as the answers that a run keeps of them."""
    labels = tuple(f"action {index}" for index in range(scores.shape[1]))
    answers = []
    for number, (of_clip, index) in enumerate(zip(scores, truth, strict=True)):
        prediction = Prediction(
            f"{number}.mp4", "m", labels, of_clip, VIDEO, (), 1, 8, 8, "cpu", StageTimings(0.0, 0.0, 0.0)
        )
        known = Truth(labels[index], int(index), groups[number] if groups else None)
        answers.append(from_row(to_row(prediction, known), known))
    return answers


def unreadable(index: int) -> Answer:
    known = Truth(f"action {index}", index, None)
    return from_row(to_row(Failure("bad.mp4", "m", VideoError("corrupt", "cut off")), known), known)


def random_scores(num_clips: int, num_classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    random = np.random.default_rng(num_classes)
    truth = random.integers(0, num_classes, num_clips)
    logits = 3 * random.normal(size=(num_clips, num_classes))
    logits[np.arange(num_clips), truth] += 2
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True), truth


@pytest.mark.parametrize("num_classes", [2, 3, 6, 40])
def test_figures_against_loops(num_classes: int) -> None:
    scores, truth = random_scores(150, num_classes)
    without = num_classes - 1  # the last class has no clip, but some are taken for it
    truth[truth == without] = 0
    measured = compute_metrics(answers_of(scores, truth.tolist()), num_classes)
    assert measured is not None

    k = min(5, num_classes)
    right, in_top_k, of_class = 0, 0, {int(index): [0, 0] for index in truth}
    confusion = np.zeros((num_classes, num_classes), int)
    for of_clip, true in zip(scores, truth, strict=True):
        best_first = sorted(range(num_classes), key=lambda index: -of_clip[index])
        right += best_first[0] == true
        in_top_k += true in best_first[:k]
        of_class[int(true)][0] += best_first[0] == true
        of_class[int(true)][1] += 1
        confusion[true, best_first[0]] += 1
    assert confusion[:, without].any()

    assert list(measured.accuracies) == list(dict.fromkeys(["top1", f"top{k}", "mean_class"]))
    assert measured.accuracies["top1"].value == pytest.approx(right / 150)
    assert measured.accuracies[f"top{k}"].value == pytest.approx(in_top_k / 150)
    mean_class = sum(hits / number for hits, number in of_class.values()) / len(of_class)
    assert measured.accuracies["mean_class"].value == pytest.approx(mean_class)
    np.testing.assert_array_equal(measured.confusion, confusion)
    assert measured.mean_confidence == pytest.approx(scores.max(axis=1).mean())
    assert measured.num_groups == 150
    for figure in measured.accuracies.values():
        assert figure.unreadable_as_wrong == pytest.approx(figure.value)
        assert figure.interval is not None
        assert figure.interval[0] <= figure.value <= figure.interval[1]


def test_calibration_error_against_a_loop() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.05, 1, 500)
    right = (random.random(500) < confidence**2).astype(float)
    expected = 0.0
    for number in range(NUM_BINS):
        inside = [i for i in range(500) if number / NUM_BINS < confidence[i] <= (number + 1) / NUM_BINS]
        if inside:
            gap = sum(right[i] for i in inside) / len(inside) - sum(confidence[i] for i in inside) / len(inside)
            expected += len(inside) / 500 * abs(gap)
    assert expected > 0.1
    assert calibration_error(confidence, right) == pytest.approx(expected, abs=1e-6)


def test_figures_are_those_of_torchmetrics() -> None:
    scores, truth = random_scores(200, 7)
    measured = compute_metrics(answers_of(scores, truth.tolist()), 7)
    assert measured is not None
    preds, target = torch.from_numpy(scores), torch.from_numpy(truth)
    for name, expected in {
        "top1": torchmetrics.multiclass_accuracy(preds, target, 7, average="micro"),
        "top5": torchmetrics.multiclass_accuracy(preds, target, 7, average="micro", top_k=5),
        "mean_class": torchmetrics.multiclass_accuracy(preds, target, 7, average="macro"),
    }.items():
        assert measured.accuracies[name].value == pytest.approx(float(expected)), name
    error = torchmetrics.multiclass_calibration_error(preds, target, 7, n_bins=NUM_BINS, norm="l1")
    assert measured.calibration_error == pytest.approx(float(error), abs=1e-6)
    confusion = torchmetrics.multiclass_confusion_matrix(preds, target, 7)
    np.testing.assert_array_equal(measured.confusion, confusion.numpy())


def test_a_confidence_that_rounding_put_above_1_is_1() -> None:
    right = np.array([1.0, 0.0])
    assert calibration_error(np.array([1 + 1e-12, 0.5]), right) == pytest.approx(0.25)  # (|1 - 1| + |0 - 0.5|) / 2


def test_equal_scores_rank_in_label_order_as_the_answer_does() -> None:
    scores = np.full((3, 4), 0.25)
    assert [answer.true_rank for answer in answers_of(scores, [0, 1, 3])] == [1, 2, 4]
    assert [answer.right for answer in answers_of(scores, [0, 1, 3])] == [True, False, False]


def test_unreadable_clips_are_not_left_out_of_the_denominator() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    measured = compute_metrics([*answers_of(scores, [0, 1, 1]), unreadable(0), unreadable(2)], 3)
    assert measured is not None
    assert measured.accuracies["top1"].value == pytest.approx(2 / 3)
    assert measured.accuracies["top1"].unreadable_as_wrong == pytest.approx(2 / 5)
    assert measured.accuracies["top3"].unreadable_as_wrong == pytest.approx(3 / 5)
    assert measured.accuracies["mean_class"].value == pytest.approx((1 + 1 / 2) / 2)
    assert measured.accuracies["mean_class"].unreadable_as_wrong == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert measured.confusion.sum() == 3


def test_nothing_readable_has_no_figures() -> None:
    assert compute_metrics([unreadable(0)], 3) is None


def test_groups_are_numbered_and_a_clip_without_one_is_its_own() -> None:
    assert group_numbers(["a", None, "b", "a", None]).tolist() == [0, 1, 2, 0, 3]


def test_intervals_depend_on_the_seed_alone() -> None:
    scores, truth = random_scores(60, 6)
    answers = answers_of(scores, truth.tolist())

    def intervals(seed: int) -> list[tuple[float, float] | None]:
        measured = compute_metrics(answers, 6, seed=seed)
        assert measured is not None
        return [figure.interval for figure in measured.accuracies.values()]

    assert intervals(1) == intervals(1)
    assert intervals(1) != intervals(2)


def test_a_single_group_has_no_interval() -> None:
    scores, truth = random_scores(10, 6)
    measured = compute_metrics(answers_of(scores, truth.tolist(), ["s1"] * 10), 6)
    assert measured is not None
    assert measured.num_groups == 1
    assert [figure.interval for figure in measured.accuracies.values()] == [None] * 3


def test_intervals_cover_the_truth_when_groups_are_drawn_and_not_when_clips_are() -> None:
    """60 people with their own share of right answers (mean 0.5), 8 clips each."""
    random = np.random.default_rng(5)
    groups = np.repeat(np.arange(60), 8)
    covered = {"groups": 0, "clips": 0}
    widths = {"groups": 0.0, "clips": 0.0}
    experiments = 150
    for _ in range(experiments):
        right = (random.random(480) < np.repeat(random.beta(0.5, 0.5, 60), 8)).astype(float)
        for name, drawn in (("groups", groups), ("clips", np.arange(480))):
            interval = bootstrap(
                {"top1": lambda weights, right=right: float(np.average(right, weights=weights))},
                drawn,
                seed=0,
                resamples=200,
            )["top1"]
            assert interval is not None
            covered[name] += interval[0] <= 0.5 <= interval[1]
            widths[name] += interval[1] - interval[0]
    assert 0.88 <= covered["groups"] / experiments <= 0.99
    assert covered["clips"] / experiments < 0.8
    # Eight clips that share half their variance are worth 8 / (1 + 7 / 2) = 1.8 independent ones.
    assert widths["groups"] / widths["clips"] == pytest.approx((1 + 7 / 2) ** 0.5, rel=0.1)
