"""Splits into training and validation sets that share no group and no content."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.datasets.duplicates import connected, link_equal
from nonlocal_video.datasets.manifest import TRAIN, VALIDATION, fold_name
from nonlocal_video.errors import UsageError

_MAX_PARTS = 20
"""Largest number of parts that approximate a share: 0.15 is 3 of 20."""


@dataclass(frozen=True)
class SplitPlan:
    """Plan for splitting clips without a given split: by a validation share, or into folds."""

    validation_share: float | None = 0.2
    """Fraction of clips held out for validation."""
    folds: int | None = None
    """Number of folds for cross-validation."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        if (self.validation_share is None) == (self.folds is None):
            raise UsageError("Give either a validation share or a number of folds.")
        if self.validation_share is not None and not 0.05 <= self.validation_share <= 0.5:
            raise UsageError(f"validation-share = {self.validation_share:g} should be from 0.05 to 0.5.")
        if self.folds is not None and self.folds < 2:
            raise UsageError(f"folds = {self.folds} should be at least 2.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed = {self.seed} should be from 0 to 2**32 - 1.")


@dataclass(frozen=True)
class Splits:
    """The split of each clip, with notes."""

    of_clip: tuple[str, ...]
    """Name of each clip's split."""
    notes: tuple[str, ...]
    """Notes on classes that are missing in a split, one sentence each."""


def assign_splits(
    labels: Sequence[str],
    groups: Sequence[str | None],
    contents: Sequence[object],
    plan: SplitPlan,
    *,
    given: Sequence[str | None] | None = None,
) -> Splits:
    """Split clips into training and validation sets or into folds.

    Clips that share a group or a content, directly or through others, stay together. The splits are stratified by class
    as closely as groups allow (scikit-learn's `StratifiedGroupKFold`).

    Args:
        labels: Class of each clip.
        groups: Group of each clip, such as the person or the source video; None for a single clip.
        contents: Keys that are equal for clips with the same content.
        plan: How to split clips without a given split.
        given: Given splits, which are kept; clips linked to such a clip get its split.

    Raises:
        UsageError: There are too few independent clips, or a clip is linked to two given splits.
    """
    units = connected(len(labels), link_equal(groups, contents))
    splits: list[str | None] = list(given) if given is not None else [None] * len(labels)
    _follow_given(splits, units)
    unsplit = np.array([index for index, split in enumerate(splits) if split is None], dtype=np.int64)
    if len(unsplit) == 0:
        return Splits(tuple(str(split) for split in splits), ())
    unsplit_labels, unsplit_units = [labels[index] for index in unsplit], units[unsplit]
    if plan.folds is not None:
        parts = _divide(unsplit_labels, unsplit_units, plan.folds, plan.seed)
        names = [fold_name(part + 1) for part in parts]
    else:
        assert plan.validation_share is not None
        held_out = _held_out(unsplit_labels, unsplit_units, plan.validation_share, plan.seed)
        names = [VALIDATION if out else TRAIN for out in held_out]
    for index, name in zip(unsplit, names, strict=True):
        splits[index] = name
    done = tuple(str(split) for split in splits)
    return Splits(done, tuple(_notes(labels, done, units, sorted(set(names)))))


def groups_in_two_splits(keys: Sequence[object], splits: Sequence[str | None]) -> dict[object, list[str]]:
    """Return the groups, or contents, that occur in more than one given split, with these splits."""
    found: dict[object, set[str]] = {}
    for key, split in zip(keys, splits, strict=True):
        if key is not None and split is not None:
            found.setdefault(key, set()).add(split)
    return {key: sorted(names) for key, names in found.items() if len(names) > 1}


def _follow_given(splits: list[str | None], units: NDArray[np.int64]) -> None:
    splits_of_unit: dict[int, set[str]] = {}
    for unit, split in zip(units.tolist(), splits, strict=True):
        if split is not None:
            splits_of_unit.setdefault(unit, set()).add(split)
    for index, unit in enumerate(units.tolist()):
        if splits[index] is None and unit in splits_of_unit:
            if len(splits_of_unit[unit]) > 1:
                raise UsageError(
                    f"A clip has no split, and clips of its group or content are in "
                    f"{' and '.join(sorted(splits_of_unit[unit]))}; give every clip of such a group a split."
                )
            (splits[index],) = splits_of_unit[unit]


def _divide(labels: Sequence[str], units: NDArray[np.int64], parts: int, seed: int) -> NDArray[np.int64]:
    """Return the part of each clip, from 0; no part is empty."""
    from sklearn.model_selection import StratifiedGroupKFold

    num_units = len(np.unique(units))
    largest = max(Counter(labels).values())
    if parts > min(num_units, largest):
        raise UsageError(
            f"{parts} folds need at least as many independent groups ({num_units} here) and a class with as many clips "
            f"(the largest has {largest}); use at most {min(num_units, largest)}."
        )
    found = np.empty(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # `_notes` reports it by name
        for part, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, units)):
            found[held_out] = part
    if len(np.unique(found)) < parts:
        raise UsageError(f"The groups are too unequal in size for {parts} folds: one stays empty. Use fewer.")
    return found


def _held_out(labels: Sequence[str], units: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Return whether each clip is held out for validation; classes with a single unit are not."""
    units_of_class: dict[str, set[int]] = {}
    for label, unit in zip(labels, units.tolist(), strict=True):
        units_of_class.setdefault(label, set()).add(unit)
    only_one = {unit for members in units_of_class.values() if len(members) == 1 for unit in members}
    free = np.array([index for index, unit in enumerate(units.tolist()) if unit not in only_one], dtype=np.int64)
    held_out = np.zeros(len(labels), dtype=np.bool_)
    if len(free) == 0:
        raise UsageError(
            "Every independent group is the only one of some class, so nothing can be held out for validation. "
            "Record more clips, or give every clip its true group."
        )
    free_labels = [labels[index] for index in free]
    held_out[free] = _share_of(free_labels, units[free], share, seed)
    return held_out


def _share_of(labels: Sequence[str], units: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose adjacent parts, of the finest non-empty partition, that leave most classes in both sets."""
    finest = min(_MAX_PARTS, len(np.unique(units)), max(Counter(labels).values()))
    wanted = Fraction(share).limit_denominator(max(2, finest)).denominator
    for num_parts in range(max(2, wanted), 1, -1):
        try:
            parts = _divide(labels, units, num_parts, seed)
        except UsageError:
            continue
        candidates = [(parts - first) % num_parts < max(1, round(share * num_parts)) for first in range(num_parts)]
        return min(candidates, key=lambda chosen: _cost(labels, chosen, share))
    return units == np.random.default_rng(seed).choice(np.unique(units))  # too few for parts


def _cost(labels: Sequence[str], chosen: NDArray[np.bool_], share: float) -> tuple[int, int, float]:
    train_labels = {label for label, out in zip(labels, chosen, strict=True) if not out}
    validation_labels = {label for label, out in zip(labels, chosen, strict=True) if out}
    return -len(train_labels), -len(validation_labels), abs(float(chosen.mean()) - share)


def _notes(
    labels: Sequence[str], splits: Sequence[str], units: NDArray[np.int64], split_names: Sequence[str]
) -> list[str]:
    """Return a note for each class that is missing in a split."""
    notes = []
    for label in sorted(set(labels)):
        indices = [index for index, name in enumerate(labels) if name == label]
        within = {splits[index] for index in indices}
        num_units = len({int(units[index]) for index in indices})
        independent = f"{num_units} independent group{'s' if num_units > 1 else ''}"
        missing = [name for name in split_names if name not in within]
        if missing:
            notes.append(f"Class {label!r} has {len(indices)} clips of {independent}: none in {', '.join(missing)}.")
    return notes
