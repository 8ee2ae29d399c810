"""Nothing that belongs together is ever torn apart, whatever the clips."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nonlocal_video.datasets.duplicates import connected, link_equal
from nonlocal_video.datasets.splits import SplitPlan, assign_splits, groups_in_two_splits
from nonlocal_video.errors import UsageError

clips = st.lists(
    st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 9).map(str), st.integers(0, 40)),
    min_size=2,
    max_size=40,
)
plans = st.builds(
    lambda number, seed: SplitPlan(None, number, seed) if number > 1 else SplitPlan(0.1 + number / 3, None, seed),
    st.integers(2, 5) | st.floats(0.0, 1.0),
    st.integers(0, 3),
)


@settings(deadline=None, max_examples=60)
@given(clips, plans)
def test_a_group_or_content_is_never_on_two_sides(rows: list[tuple[str, str | None, int]], plan: SplitPlan) -> None:
    labels, groups, contents = map(list, zip(*rows, strict=True))
    try:
        splits = assign_splits(labels, groups, contents, plan)
    except UsageError:
        units = connected(len(rows), link_equal(groups, contents)).tolist()
        if plan.folds is None:
            of_class = {label: {u for u, of in zip(units, labels, strict=True) if of == label} for label in labels}
            assert all({unit} in of_class.values() for unit in units)
        else:
            assert plan.folds > min(len(set(units)), max(Counter(labels).values()))
        return
    assert len(splits.of_clip) == len(rows)
    assert not groups_in_two_splits(groups, splits.of_clip)
    assert not groups_in_two_splits(contents, splits.of_clip)
    expected = {"train", "validation"} if plan.folds is None else {f"fold{n + 1}" for n in range(plan.folds)}
    assert set(splits.of_clip) == expected
    assert splits == assign_splits(labels, groups, contents, plan)
    for label in set(labels):
        for name in expected - {s for s, of in zip(splits.of_clip, labels, strict=True) if of == label}:
            assert any(f"Class '{label}'" in note and name in note for note in splits.notes)


@settings(deadline=None, max_examples=40)
@given(clips, st.data())
def test_given_splits_stay_and_others_of_the_group_follow(
    rows: list[tuple[str, str | None, int]], data: st.DataObject
) -> None:
    labels, groups, contents = map(list, zip(*rows, strict=True))
    units = connected(len(rows), link_equal(groups, contents)).tolist()
    of_unit = {unit: data.draw(st.sampled_from(["test", "train", None])) for unit in sorted(set(units))}
    some = [of_unit[unit] if data.draw(st.booleans()) else None for unit in units]
    try:
        splits = assign_splits(labels, groups, contents, SplitPlan(), given=some)
    except UsageError:
        assume(False)
    assert all(before in (None, after) for before, after in zip(some, splits.of_clip, strict=True))
    assert not groups_in_two_splits(units, splits.of_clip)


@pytest.mark.parametrize("share", [0.1, 0.15, 0.2, 0.3, 0.5])
def test_share_and_classes_are_kept_where_groups_allow(share: float) -> None:
    labels = ["a"] * 100 + ["b"] * 40
    splits = assign_splits(labels, [None] * 140, range(140), SplitPlan(share)).of_clip
    held_out = Counter(label for label, split in zip(labels, splits, strict=True) if split == "validation")
    assert held_out["a"] == pytest.approx(100 * share, abs=2)
    assert held_out["b"] == pytest.approx(40 * share, abs=2)


def test_subjects_are_kept_apart_in_folds_and_another_seed_gives_others() -> None:
    labels = [label for subject in range(12) for label in "abc"]
    groups = [f"s{subject}" for subject in range(12) for _ in "abc"]
    first = assign_splits(labels, groups, range(36), SplitPlan(None, 4))
    assert Counter(first.of_clip) == {f"fold{number}": 9 for number in range(1, 5)}
    assert first.notes == ()
    assert assign_splits(labels, groups, range(36), SplitPlan(None, 4, seed=1)) != first


def test_a_class_of_one_group_is_trained_on_and_that_is_said() -> None:
    labels, groups = ["a"] * 10 + ["b"] * 3, [*map(str, range(10)), "x", "x", "x"]
    splits = assign_splits(labels, groups, range(13), SplitPlan(0.2))
    assert splits.of_clip[10:] == ("train",) * 3
    assert splits.of_clip.count("validation") == 2  # of the 10 that can be held out
    assert splits.notes == ("Class 'b' has 3 clips of 1 independent group: none in validation.",)


@pytest.mark.parametrize(
    ("groups", "given_splits", "plan", "message"),
    [
        (["x", "x", "x"], None, SplitPlan(), "Every independent group is the only one of some class"),
        (["x", "y", "y"], None, SplitPlan(None, 3), r"3 folds need at least as many independent groups \(2 here\)"),
        (["x", "x", "x"], ["train", "test", None], SplitPlan(), "are in test and train; give every clip"),
    ],
)
def test_what_cannot_be_divided_is_refused(groups, given_splits, plan, message) -> None:
    with pytest.raises(UsageError, match=message):
        assign_splits(["a"] * 3, groups, range(3), plan, given=given_splits)
