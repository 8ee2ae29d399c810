"""Report of a check: the manifest for training, and the findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nonlocal_video.datasets.check import CheckedClip
from nonlocal_video.datasets.duplicates import same_content, sameness
from nonlocal_video.datasets.frame_size import is_enlarged, size_problem
from nonlocal_video.datasets.labelled import alike_names
from nonlocal_video.datasets.manifest import Manifest, ManifestRow
from nonlocal_video.datasets.splits import SplitPlan, assign_splits, groups_in_two_splits
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.fragment import split_part
from nonlocal_video.inference.prediction import printable
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.region import Region

IMBALANCE = 3.0
"""Ratio of clips in the largest and the smallest class from which classes are reported as unequal."""


@dataclass(frozen=True)
class SameContent:
    """Clips with the same content."""

    paths: tuple[str, ...]
    by: str
    """Kind of agreement: `bytes`, or `pictures` for the same frames in another file."""
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    """Different ones; none is no group."""
    given_splits: tuple[str, ...]

    @property
    def contradictory(self) -> bool:
        """Whether the labels differ, so that the clips cannot be used for training."""
        return len(self.labels) > 1

    @property
    def leaks(self) -> bool:
        """Whether they occur in more than one given split."""
        return len(self.given_splits) > 1


@dataclass(frozen=True, repr=False)
class CheckReport:
    """All findings of a check."""

    manifest: Manifest
    same: tuple[SameContent, ...]
    short: tuple[str, ...]
    """Clips shorter than the model's view."""
    small: tuple[str, ...]
    """Clips whose frames, or the region of them, are enlarged for the model."""
    file_notes: tuple[tuple[str, str], ...]
    """Notes of the decoder on usable clips, such as a missing end."""
    split_groups: tuple[tuple[str, tuple[str, ...]], ...]
    """Groups that occur in more than one given split, with these splits."""
    undivided: str | None
    """Reason why clips without a given split could not be split; None if they could."""
    num_decoded: int
    """Number of decoded frames of all clips."""
    notes: tuple[str, ...]
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Number of skipped files and folders by kind."""

    @property
    def unusable(self) -> tuple[ManifestRow, ...]:
        """Clips that cannot be used."""
        return tuple(row for row in self.manifest.rows if not row.usable)

    @property
    def all_well(self) -> bool:
        """Whether no clip is unreadable, contradictory, or in two given splits."""
        return not (self.unusable or any(same.leaks for same in self.same))

    def per_class(self) -> list[dict[str, Any]]:
        """Return the number of usable clips, groups and seconds of each class, including empty classes."""
        rows_of: dict[str, list[ManifestRow]] = {}
        for row in self.manifest.rows:
            rows_of.setdefault(row.label, []).append(row)
        found, names = [], self.manifest.splits
        for label, rows in sorted(rows_of.items()):
            usable = [row for row in rows if row.usable]
            splits = Counter(row.split for row in usable)
            found.append(
                {
                    "label": label,
                    "clips": len(usable),
                    "groups": len({row.group for row in usable if row.group}) + sum(not row.group for row in usable),
                    "seconds": round(sum(row.duration_seconds or 0.0 for row in usable), 3),
                    "unusable": len(rows) - len(usable),
                    "splits": {split: splits[split] for split in names},
                }
            )
        return found

    def balance(self) -> str:
        """Describe how the sizes of the classes compare."""
        sizes = {row["label"]: row["clips"] for row in self.per_class()}
        empty = [label for label, clips in sizes.items() if not clips]
        filled = {label: clips for label, clips in sizes.items() if clips}
        says = [f"No usable clip in class {', '.join(map(repr, empty))}."] if empty else []
        if len(filled) < 2:
            return " ".join([*says, f"{len(filled)} class with usable clips: there is nothing to tell apart."])
        small, large = min(filled, key=lambda label: filled[label]), max(filled, key=lambda label: filled[label])
        ratio = filled[large] / filled[small]
        counts = f"{filled[small]} ({small!r}) to {filled[large]} ({large!r}) clips a class"
        if ratio == 1:
            return " ".join([*says, f"All {len(filled)} classes have equally many clips: {filled[small]}."])
        if ratio < IMBALANCE:
            return " ".join([*says, f"The classes are fairly equal: {counts}."])
        advice = "record more of the small ones, and look at the mean class accuracy"
        return " ".join([*says, f"The classes are unequal: {counts}, {ratio:.1f} times as many; {advice}."])

    def summary(self) -> dict[str, Any]:
        """Return the findings, as in `--json`."""
        usable = self.manifest.usable
        return {
            "clips": len(self.manifest.rows),
            "usable": len(usable),
            "seconds": round(sum(row.duration_seconds or 0.0 for row in usable), 3),
            "frames_decoded": self.num_decoded,
            "classes": self.per_class(),
            "balance": self.balance(),
            "splits": dict(sorted(Counter(row.split for row in usable if row.split).items())),
            "unusable": [{"path": printable(row.path), "problem": row.problem} for row in self.unusable],
            "same_content": [
                {
                    "paths": [printable(path) for path in same.paths],
                    "by": same.by,
                    "labels": list(same.labels),
                    "groups": list(same.groups),
                    "given_splits": list(same.given_splits),
                }
                for same in self.same
            ],
            "shorter_than_a_view": [printable(path) for path in self.short],
            "smaller_than_a_view": [printable(path) for path in self.small],
            "file_notes": [{"path": printable(path), "note": note} for path, note in self.file_notes],
            "groups_in_two_splits": {group: list(splits) for group, splits in self.split_groups},
            "undivided": self.undivided,
            "notes": list(self.notes),
            "passed_over": dict(self.passed_over),
        }


def make_report(
    checked: Sequence[CheckedClip], spec: InputSpec, plan: SplitPlan, *, region: Region | None = None
) -> CheckReport:
    """Compare clips with each other and with the model's input, and split the usable ones.

    Args:
        checked: All checked clips.
        spec: Input of the model.
        plan: How to split clips without a given split; if that is impossible, they have no split in the report.
        region: Part of the frames that the model will look at; None is all of them.
    """
    readable = [index for index, one in enumerate(checked) if one.error is None]
    content = dict(zip(readable, _contents([checked[index] for index in readable]), strict=True))
    members: dict[int, list[int]] = {}
    for index, number in content.items():
        members.setdefault(number, []).append(index)
    same = {number: _same([checked[index] for index in indices]) for number, indices in members.items()}

    problems: dict[int, str] = {}
    for index, one in enumerate(checked):
        if one.error is not None:
            problems[index] = f"{one.error.code}: {one.error.message}"
        elif (problem := size_problem(_info(one), spec, region)) is not None:
            problems[index] = problem
        elif same[content[index]].contradictory:
            problems[index] = _contradiction(one, [checked[other] for other in members[content[index]]])
    usable = [index for index in range(len(checked)) if index not in problems]
    clips = [one.clip for one in checked]
    given = [clips[index].split for index in usable]
    groups = [clips[index].group for index in usable]
    undivided: str | None = None
    notes: tuple[str, ...] = ()
    splits: Sequence[str | None] = given
    try:
        divided = assign_splits(
            [clips[index].label for index in usable], groups, [content[index] for index in usable], plan, given=given
        )
        splits, notes = divided.of_clip, divided.notes
    except UsageError as error:
        undivided = str(error)
    split_of = dict(zip(usable, splits, strict=True))
    rows = [
        _row(one, problems.get(index), split_of.get(index), checked[members[content[index]][0]].clip.path)
        if index in content
        else ManifestRow(one.clip.path, one.clip.label, one.clip.group, problem=problems[index])
        for index, one in enumerate(checked)
    ]
    split_groups_found = groups_in_two_splits(groups, given)
    return CheckReport(
        manifest=Manifest(tuple(rows)),
        same=tuple(one for one in same.values() if len(one.paths) > 1),
        short=tuple(clips[index].path for index in usable if _is_short(_info(checked[index]), spec)),
        small=tuple(clips[index].path for index in usable if is_enlarged(_info(checked[index]), spec, region)),
        file_notes=tuple((clips[index].path, note) for index in usable for note in _info(checked[index]).notes),
        split_groups=tuple((str(group), tuple(names)) for group, names in split_groups_found.items()),
        undivided=undivided,
        num_decoded=sum(one.num_decoded for one in checked),
        notes=(*notes, *alike_names([clip.label for clip in clips])),
    )


def _contents(readable: Sequence[CheckedClip]) -> list[int]:
    if not readable:
        return []
    thumbnails = np.stack([one.thumbnails for one in readable if one.thumbnails is not None])
    sha256 = [str(one.sha256) for one in readable]
    parts = [split_part(one.clip.path) for one in readable]
    segment_of = [video if part else None for video, part in parts]
    return same_content(sha256, [_info(one).num_frames for one in readable], thumbnails, segment_of).tolist()


def _same(clips: Sequence[CheckedClip]) -> SameContent:
    def different(values: list[str | None]) -> tuple[str, ...]:
        return tuple(sorted({value for value in values if value is not None}))

    return SameContent(
        paths=tuple(one.clip.path for one in clips),
        by=sameness([str(one.sha256) for one in clips]),
        labels=different([one.clip.label for one in clips]),
        groups=different([one.clip.group for one in clips]),
        given_splits=different([one.clip.split for one in clips]),
    )


def _contradiction(one: CheckedClip, alike: Sequence[CheckedClip]) -> str:
    others = [f"{printable(other.clip.path)!r} ({other.clip.label!r})" for other in alike if other is not one]
    return f"contradiction: labelled {one.clip.label!r}, with the same content as {', '.join(others)}."


def _row(one: CheckedClip, problem: str | None, split: str | None, content: str) -> ManifestRow:
    info = _info(one)
    return ManifestRow(
        path=one.clip.path,
        label=one.clip.label,
        group=one.clip.group,
        split=split,
        problem=problem,
        duration_seconds=info.duration_seconds,
        num_frames=info.num_frames,
        fps=info.fps,
        width=info.width,
        height=info.height,
        sha256=one.sha256,
        content=content,
    )


def _info(one: CheckedClip) -> VideoInfo:
    assert one.info is not None  # of clips that could be read
    return one.info


def _is_short(info: VideoInfo, spec: InputSpec) -> bool:
    """Return whether a clip is shorter than a view, up to rounding of a millisecond, as in `plan_views`."""
    return spec.num_frames / spec.rate_in(info.fps) - info.duration_seconds > 0.001
