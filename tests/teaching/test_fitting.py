"""Heads against scikit-learn and closed forms, groups left out against doing it by hand, and when a clip is unknown."""

from __future__ import annotations

import numpy as np
import pytest

from nonlocal_video.models.taught import TaughtClasses, damped, encoded, mean_share, rooted
from nonlocal_video.retrieval.likeness import rooted as rooted_by_search
from nonlocal_video.teaching.fitting import (
    TaughtExamples,
    damping,
    damping_of_head,
    leave_groups_out,
    teach_features,
)
from nonlocal_video.teaching.heads import HEADS, RIDGE_PENALTY, TrainingRows, class_means, fit_head
from nonlocal_video.teaching.lessons import head_weights
from nonlocal_video.teaching.report import accuracy_interval

NUM_FEATURES = 40


def some_examples(per_class: int, *, num_classes: int = 4, windows: int = 2, spread: float = 0.5, seed: int = 0):
    """Examples around a centre each, one group for each number within a class."""
    random = np.random.default_rng(seed)
    centres = random.uniform(size=(num_classes, NUM_FEATURES))
    labels = [(label,) for label in range(num_classes) for _ in range(per_class)]
    noise = spread * random.uniform(size=(len(labels), windows, NUM_FEATURES))
    rows = np.concatenate([centres[label] + noise[i] for i, (label,) in enumerate(labels)])
    groups = np.array([i % per_class for i in range(len(labels))])
    return TaughtExamples(rows, np.repeat(np.arange(len(labels)), windows), labels, groups, num_classes), centres


NO_DIRECTIONS = np.empty((0, NUM_FEATURES))


def rows_of(examples: TaughtExamples) -> TrainingRows:
    return examples.for_heads(examples.scales(examples.known), NO_DIRECTIONS).rows(examples.known)


def test_ridge_is_the_weighted_least_squares_of_its_definition() -> None:
    examples, _ = some_examples(3)
    rows = rows_of(examples)
    head = fit_head("ridge", rows)
    # Augmented least squares: sqrt(w) [x 1] b ~ sqrt(w) y, and a row sqrt(penalty) for each feature but not the bias.
    root = np.sqrt(rows.balanced)[:, None]
    centred = rows.features - rows.balanced @ rows.features
    penalty = RIDGE_PENALTY * float(rows.balanced @ (centred**2).sum(axis=1))
    left = np.concatenate(
        [
            np.c_[rows.features, np.ones(len(rows.features))] * root,
            np.c_[np.sqrt(penalty) * np.eye(NUM_FEATURES), np.zeros(NUM_FEATURES)],
        ]
    )
    right = np.concatenate([np.eye(4)[rows.classes] * root, np.zeros((NUM_FEATURES, 4))])
    solution = np.linalg.lstsq(left, right, rcond=None)[0]
    np.testing.assert_allclose(head.weight, solution[:-1].T, atol=1e-6)
    np.testing.assert_allclose(head.bias, solution[-1], atol=1e-6)


def test_nearest_class_mean_is_scikit_learns_nearest_centroid_on_the_sphere() -> None:
    from sklearn.neighbors import NearestCentroid

    examples, centres = some_examples(5)
    rows = rows_of(examples)
    head = fit_head("nearest-class-mean", rows)
    asked = damped(centres.repeat(20, axis=0) + np.random.default_rng(1).normal(size=(80, NUM_FEATURES)), centres[:0])
    centre = class_means(rows).mean(axis=0)
    judge = NearestCentroid().fit(damped(class_means(rows) - centre, centres[:0]), range(4))
    np.testing.assert_array_equal(head(asked).argmax(1), judge.predict(damped(asked - centre, centres[:0])))


@pytest.mark.parametrize("num_classes", [2, 4])
def test_logistic_regression_has_a_gradient_of_zero(num_classes: int) -> None:
    examples, _ = some_examples(4, num_classes=num_classes, spread=3.0)
    rows = rows_of(examples)
    logits = fit_head("logistic-regression", rows)(rows.features)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    residual = (scores - np.eye(num_classes)[rows.classes]) * rows.balanced[:, None]
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=2e-3)  # the bias is not penalised


def test_classes_weigh_the_same_whatever_their_number_of_examples() -> None:
    one, _ = some_examples(3)
    repeated = TaughtExamples(
        np.concatenate([one.features, one.features[:6]]),  # the first class twice
        np.concatenate([one.example_of, one.example_of[:6] + len(one.labels)]),
        [*one.labels, *one.labels[:3]],
        np.concatenate([one.groups, one.groups[:3]]),
        4,
    )
    for name in HEADS:
        first, second = fit_head(name, rows_of(one)), fit_head(name, rows_of(repeated))
        np.testing.assert_allclose(first(one.features), second(one.features), atol=2e-3)


def test_groups_left_out_are_answered_by_the_others_alone() -> None:
    examples, _ = some_examples(3)
    found = leave_groups_out(examples)
    for group in range(3):
        rest = np.flatnonzero(examples.groups != group)
        scaled = examples.for_heads(examples.scales(rest), NO_DIRECTIONS)
        head = fit_head("ridge", scaled.rows(rest))
        out = np.flatnonzero(examples.groups == group)
        np.testing.assert_allclose(found.logits["ridge"][out], head(scaled.means()[out]), atol=1e-9)
    assert found.measured.all()


def test_a_class_of_one_group_is_not_measured() -> None:
    examples, _ = some_examples(3)
    groups = examples.groups.copy()
    groups[:3] = 0  # all of the first class
    found = leave_groups_out(TaughtExamples(examples.features, examples.example_of, examples.labels, groups, 4))
    np.testing.assert_array_equal(found.measured, [False] * 3 + [True] * 9)


def test_many_groups_are_left_out_in_twenty_parts_that_keep_classes() -> None:
    examples, _ = some_examples(16, num_classes=2)
    alone = TaughtExamples(examples.features, examples.example_of, examples.labels, np.arange(32), 2)
    assert leave_groups_out(alone, ("nearest-class-mean",)).measured.all()


def test_scores_are_calibrated_on_groups_left_out() -> None:
    """Mean confidence in hard examples is about the accuracy, which unscaled scores of ridge are far from."""
    examples, _ = some_examples(20, spread=6.0, windows=1)
    lesson = teach_features(examples, heads=("ridge",))
    accuracy = lesson.accuracies["ridge"]
    confidence = lesson.left_out.probabilities("ridge", lesson.scale).max(axis=1).mean()
    assert accuracy is not None
    assert 0.3 < accuracy < 0.99
    assert abs(confidence - accuracy) < 0.1


def test_what_is_known_and_what_is_not() -> None:
    random = np.random.default_rng(3)
    examples, centres = some_examples(20, windows=1)
    lesson = teach_features(examples)
    known = centres.repeat(50, axis=0) + 0.5 * random.uniform(size=(200, NUM_FEATURES))
    others = random.uniform(size=(200, NUM_FEATURES)) + 0.5 * random.uniform(size=(200, NUM_FEATURES))
    assert lesson.classes.likeness(known).unknown.mean() < 0.15
    assert lesson.classes.likeness(others).unknown.mean() > 0.9
    assert (lesson.classes.likeness(known).nearest == np.repeat(range(4), 50)).all()
    # A folder whose clips all have something in common: by themselves unknown, less its mean known.
    moved = known + 2 * random.uniform(size=NUM_FEATURES)
    assert lesson.classes.likeness(moved).unknown.mean() > 0.9
    assert lesson.classes.likeness(moved, folder=True).unknown.mean() < 0.2


def test_clips_of_none_of_these_take_their_like_away() -> None:
    examples, centres = some_examples(4)
    between = centres[:2].mean(axis=0)
    lesson = teach_features(examples)
    with_none = teach_features(
        TaughtExamples(
            np.concatenate([examples.features, between[None]]),
            np.append(examples.example_of, 16),
            [*examples.labels, ()],
            np.append(examples.groups, 9),
            4,
        )
    )
    assert with_none.accuracies == lesson.accuracies
    assert with_none.classes.likeness(between[None]).value == -1.0
    assert not with_none.classes.likeness(centres + 0.25).unknown.any()  # the mean of the noise is 0.25


def test_a_clip_with_two_labels_is_right_with_either() -> None:
    examples, _ = some_examples(3)
    labels = [(0, 1) if label == (1,) else label for label in examples.labels]
    both = TaughtExamples(examples.features, examples.example_of, labels, examples.groups, 4)
    right = leave_groups_out(both).right("nearest-class-mean", labels)
    assert right[3:6].tolist() == [1, 1, 1]
    assert rows_of(both).weights[rows_of(both).classes == 1].tolist() == [0.25] * 6  # two windows, two labels


def test_damping_within_classes_is_the_inverse_root_of_their_covariance() -> None:
    examples, _ = some_examples(3)
    rows = rows_of(examples)
    directions = damping(rows)
    residuals = rows.features - class_means(rows)[rows.classes]
    covariance = (residuals * rows.balanced[:, None]).T @ residuals
    values, vectors = np.linalg.eigh(covariance)
    kept = values >= np.sort(values)[-len(directions)]
    scale = np.where(kept, 1 / np.sqrt(np.where(kept, values, 0) / (0.01 * values.sum()) + 1), 1.0)
    expected = vectors @ np.diag(scale) @ vectors.T
    np.testing.assert_allclose(np.eye(NUM_FEATURES) - directions.T @ directions, expected, atol=1e-6)


def test_scales_are_the_slopes_of_roots_at_the_examples_mean() -> None:
    """So that a few large features do not decide, and the head stays linear."""
    examples, _ = some_examples(3)
    scales = examples.scales(examples.known)
    sizes = examples.features.mean(axis=0)
    step = 1e-6
    slopes = (np.sqrt(sizes * (1 + step)) - np.sqrt(sizes)) / (sizes * step) * 2
    assert np.corrcoef(scales, slopes)[0, 1] > 0.98  # but for what is added to the mean
    tenfold = TaughtExamples(
        examples.features * np.r_[10.0, np.ones(NUM_FEATURES - 1)],
        *(examples.example_of, examples.labels, examples.groups, 4),
    )
    assert tenfold.scales(examples.known)[0] * 10**0.5 == pytest.approx(scales[0], rel=0.1)


def test_a_layer_that_takes_features_as_they_are_gives_the_heads_logits() -> None:
    examples, _ = some_examples(3)
    former = np.eye(2, NUM_FEATURES) * 0.7
    lesson = teach_features(examples, former_head=former)
    weight, bias = head_weights(lesson.linear, examples.features, former, lesson.scales)
    scaled = examples.features * lesson.scales
    directions = scaled - (scaled @ former.T) @ former
    usual = directions / np.linalg.norm(directions, axis=1).mean()
    np.testing.assert_allclose(examples.features @ weight.T + bias, lesson.linear(usual), atol=1e-9)


def test_roots_keep_their_signs() -> None:
    assert rooted(np.array([4.0, 0.0, -9.0])).tolist() == [2.0, 0.0, -3.0]
    features = np.random.default_rng(0).normal(size=(5, NUM_FEATURES)).astype(np.float32)
    np.testing.assert_allclose(rooted(features), rooted_by_search(features), rtol=1e-6)


def test_damping_of_a_head_is_of_a_general_one_alone() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(120, 64)) * np.linspace(3, 0.1, 64)
    found = damping_of_head(weight)
    assert found.shape == (32, 64)
    _, singular, directions = np.linalg.svd(weight - weight.mean(axis=0), full_matrices=False)
    along = directions[0] - directions[0] @ found.T @ found
    mean = singular[:-1].mean()
    np.testing.assert_allclose(along, directions[0] * mean / (singular[0] + mean), atol=1e-9)
    assert damping_of_head(weight[:99]).shape == (0, 64)


def test_the_interval_of_an_accuracy() -> None:
    right = np.array([1.0] * 18 + [0.0] * 2)
    low, high = accuracy_interval(right, np.arange(20))
    assert low < 0.9 < high
    # Wilson's interval of 10 of 10 (Brown, Cai & DasGupta 2001 give 0.7225 for its lower end).
    assert accuracy_interval(np.ones(20), np.repeat(np.arange(10), 2)) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert accuracy_interval(right, np.zeros(20, int)) is None


def test_the_share_of_a_folders_mean() -> None:
    assert [round(mean_share(count), 2) for count in (1, 8, 32)] == [0.11, 0.5, 0.8]


def test_taught_classes_refuse_what_does_not_fit() -> None:
    good = {
        "num_features": 2, "rooted_means": encoded(np.eye(2)), "none_examples": "", "former_head": "",
        "within_classes": "", "threshold": 0.5, "folder_threshold": 0.1,
    }  # fmt: skip
    assert len(TaughtClasses(**good).means) == 2
    for change in (
        {"rooted_means": encoded(np.eye(2)[:1])},
        {"rooted_means": encoded(np.ones((1, 3)))},
        {"rooted_means": "no base64"},
        {"rooted_means": encoded(np.full((2, 2), np.nan))},
        {"threshold": float("nan")},
        {"num_features": 0},
    ):
        with pytest.raises(ValueError):
            TaughtClasses(**good | change)
