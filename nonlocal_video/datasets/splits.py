"""Training and validation sets that share no group and no content."""

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

_FINEST = 20
"""Parts of which a share is put together: a share of 0.15 is 3 of 20."""


@dataclass(frozen=True)
class SplitPlan:
    """How to divide clips that no list has divided yet: by one share, or into folds."""

    validation_share: float | None = 0.2
    """Share of clips in the validation set."""
    folds: int | None = None
    """Number of folds, each of which is the validation set once."""
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.validation_share is None) == (self.folds is None):
            raise UsageError("Give a validation share, or a number of folds, and not both.")
        if self.validation_share is not None and not 0.05 <= self.validation_share <= 0.5:
            raise UsageError(f"validation-share = {self.validation_share:g} should be from 0.05 to 0.5.")
        if self.folds is not None and self.folds < 2:
            raise UsageError(f"folds = {self.folds} should be at least 2.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed = {self.seed} should be from 0 to 2**32 - 1.")


@dataclass(frozen=True)
class Splits:
    """A split for each clip, and what could not be had."""

    of_clip: tuple[str, ...]
    notes: tuple[str, ...]


def assign_splits(
    labels: Sequence[str],
    groups: Sequence[str | None],
    contents: Sequence[object],
    plan: SplitPlan,
    *,
    given: Sequence[str | None] | None = None,
) -> Splits:
    """Divide clips.

    Clips that share a group or a content, directly or through others, stay together. Under that condition each class
    is divided like the whole, as far as its groups allow (scikit-learn's `StratifiedGroupKFold`).

    Args:
        labels: The class of each clip.
        groups: The subject or source video of each clip; a clip without one is by itself.
        contents: Equal for clips with the same content.
        plan: What to make of clips without a given split.
        given: Splits that are kept as they are; clips tied to one of them follow it.

    Raises:
        UsageError: There are too few independent clips, or a clip is tied to two given splits.
    """
    units = connected(len(labels), link_equal(groups, contents))
    splits: list[str | None] = list(given) if given is not None else [None] * len(labels)
    _follow_given(splits, units)
    left = np.array([place for place, split in enumerate(splits) if split is None], dtype=np.int64)
    if len(left) == 0:
        return Splits(tuple(str(split) for split in splits), ())
    of_left, left_units = [labels[place] for place in left], units[left]
    if plan.folds is not None:
        parts = _divide(of_left, left_units, plan.folds, plan.seed)
        names = [fold_name(part + 1) for part in parts]
    else:
        assert plan.validation_share is not None
        held_out = _held_out(of_left, left_units, plan.validation_share, plan.seed)
        names = [VALIDATION if out else TRAIN for out in held_out]
    for place, name in zip(left, names, strict=True):
        splits[place] = name
    done = tuple(str(split) for split in splits)
    return Splits(done, tuple(_notes(labels, done, units, sorted(set(names)))))


def groups_on_two_sides(keys: Sequence[object], splits: Sequence[str | None]) -> dict[object, list[str]]:
    """The groups, or contents, that given splits tear apart, with their splits."""
    found: dict[object, set[str]] = {}
    for key, split in zip(keys, splits, strict=True):
        if key is not None and split is not None:
            found.setdefault(key, set()).add(split)
    return {key: sorted(sides) for key, sides in found.items() if len(sides) > 1}


def _follow_given(splits: list[str | None], units: NDArray[np.int64]) -> None:
    of_unit: dict[int, set[str]] = {}
    for unit, split in zip(units.tolist(), splits, strict=True):
        if split is not None:
            of_unit.setdefault(unit, set()).add(split)
    for place, unit in enumerate(units.tolist()):
        if splits[place] is None and unit in of_unit:
            if len(of_unit[unit]) > 1:
                raise UsageError(
                    f"A clip has no split, and clips of its group or content are in "
                    f"{' and '.join(sorted(of_unit[unit]))}; give every clip of such a group a split."
                )
            (splits[place],) = of_unit[unit]


def _divide(labels: Sequence[str], units: NDArray[np.int64], parts: int, seed: int) -> NDArray[np.int64]:
    """Part of each clip, from 0; every part has clips."""
    from sklearn.model_selection import StratifiedGroupKFold

    num_units = len(np.unique(units))
    largest = max(Counter(labels).values())
    if parts > min(num_units, largest):
        raise UsageError(
            f"{parts} folds need at least as many independent groups ({num_units} here) and a class with as many clips "
            f"(the largest has {largest}); ask for at most {min(num_units, largest)}."
        )
    found = np.empty(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # `_notes` says so, by name
        for part, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, units)):
            found[held_out] = part
    if len(np.unique(found)) < parts:
        raise UsageError(f"The clips' groups are too unequal for {parts} folds: one stays empty. Ask for fewer.")
    return found


def _held_out(labels: Sequence[str], units: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Return whether each clip is in the validation set: a share of those that can be; a class of one unit is not."""
    of_class: dict[str, set[int]] = {}
    for label, unit in zip(labels, units.tolist(), strict=True):
        of_class.setdefault(label, set()).add(unit)
    only_one = {unit for members in of_class.values() if len(members) == 1 for unit in members}
    free = np.array([place for place, unit in enumerate(units.tolist()) if unit not in only_one], dtype=np.int64)
    held_out = np.zeros(len(labels), dtype=np.bool_)
    if len(free) == 0:
        raise UsageError(
            "Every independent group is the only one of some class, so nothing can be held out to measure on. Record "
            "more clips, or give every clip its true group."
        )
    of_free = [labels[place] for place in free]
    held_out[free] = _share_of(of_free, units[free], share, seed)
    return held_out


def _share_of(labels: Sequence[str], units: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose, of the finest parts without an empty one, the neighbours that leave most classes in both sets."""
    finest = min(_FINEST, len(np.unique(units)), max(Counter(labels).values()))
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
    trained = {label for label, out in zip(labels, chosen, strict=True) if not out}
    measured = {label for label, out in zip(labels, chosen, strict=True) if out}
    return -len(trained), -len(measured), abs(float(chosen.mean()) - share)


def _notes(labels: Sequence[str], splits: Sequence[str], units: NDArray[np.int64], made: Sequence[str]) -> list[str]:
    """What a class misses."""
    notes = []
    for label in sorted(set(labels)):
        places = [place for place, name in enumerate(labels) if name == label]
        within = {splits[place] for place in places}
        num_units = len({int(units[place]) for place in places})
        independent = f"{num_units} independent group{'s' if num_units > 1 else ''}"
        missing = [name for name in made if name not in within]
        if missing:
            notes.append(f"Class {label!r} has {len(places)} clips of {independent}: none in {', '.join(missing)}.")
    return notes
