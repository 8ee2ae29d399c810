"""What a check found: the manifest that training uses, and the findings in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nonlocal_video.datasets.check import CheckedClip
from nonlocal_video.datasets.duplicates import same_content, sameness
from nonlocal_video.datasets.labelled import alike_names
from nonlocal_video.datasets.manifest import Manifest, ManifestRow
from nonlocal_video.datasets.splits import SplitPlan, assign_splits, groups_in_two_splits
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.prediction import printable
from nonlocal_video.inference.preprocessing import MAX_RESIZED_PIXELS
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.transforms import resized_size

IMBALANCE = 3.0
"""From this many times as many clips in the largest class as in the smallest, the classes are called unequal."""


@dataclass(frozen=True)
class SameContent:
    """Clips that show the same."""

    paths: tuple[str, ...]
    by: str
    """`bytes`, or `pictures`: the same frames in another file."""
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    """Different ones; none is no group."""
    given_splits: tuple[str, ...]

    @property
    def contradictory(self) -> bool:
        """Two labels: one is wrong, or the clip shows both; either way it cannot be used for training."""
        return len(self.labels) > 1

    @property
    def leaks(self) -> bool:
        """In two of the splits that the list of clips gives."""
        return len(self.given_splits) > 1


@dataclass(frozen=True, repr=False)
class CheckReport:
    """All that `check` says."""

    manifest: Manifest
    same: tuple[SameContent, ...]
    short: tuple[str, ...]
    """Clips shorter than the model's view."""
    small: tuple[str, ...]
    """Clips whose frames are enlarged for the model."""
    file_notes: tuple[tuple[str, str], ...]
    """Usable clips of which the decoder has something to say, such as a missing end."""
    split_groups: tuple[tuple[str, tuple[str, ...]], ...]
    """Groups that the given splits tear apart, and those splits."""
    undivided: str | None
    """Why the clips without a given split have none now."""
    num_decoded: int
    """Frames, of all clips."""
    notes: tuple[str, ...]
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Kind -> number of the files and folders that were not tried because of their names."""

    @property
    def unusable(self) -> tuple[ManifestRow, ...]:
        return tuple(row for row in self.manifest.rows if not row.usable)

    @property
    def all_well(self) -> bool:
        """Nothing is unreadable, contradictory, or on two sides of the given splits."""
        return not (self.unusable or any(same.leaks for same in self.same))

    def per_class(self) -> list[dict[str, Any]]:
        """Clips, groups and seconds of each class, of its usable clips; classes without any included."""
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
        """How the classes' sizes compare, in words."""
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
        """What `--json` prints."""
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


def make_report(checked: Sequence[CheckedClip], spec: InputSpec, plan: SplitPlan) -> CheckReport:
    """Compare the clips with each other and with the model's view, and divide those that can be used.

    Args:
        checked: All clips.
        spec: The model's view.
        plan: For clips whose list gives no split. What cannot be divided so is reported without a split.
    """
    readable = [place for place, one in enumerate(checked) if one.error is None]
    content = dict(zip(readable, _contents([checked[place] for place in readable]), strict=True))
    members: dict[int, list[int]] = {}
    for place, number in content.items():
        members.setdefault(number, []).append(place)
    same = {number: _same([checked[place] for place in places]) for number, places in members.items()}

    problems: dict[int, str] = {}
    for place, one in enumerate(checked):
        if one.error is not None:
            problems[place] = f"{one.error.code}: {one.error.message}"
        elif _is_too_elongated(_info(one), spec):
            problems[place] = "too_large: its frames are too elongated for the model; crop the video to what matters."
        elif same[content[place]].contradictory:
            problems[place] = _contradiction(one, [checked[other] for other in members[content[place]]])
    usable = [place for place in range(len(checked)) if place not in problems]
    clips = [one.clip for one in checked]
    given = [clips[place].split for place in usable]
    groups = [clips[place].group for place in usable]
    undivided: str | None = None
    notes: tuple[str, ...] = ()
    splits: Sequence[str | None] = given
    try:
        divided = assign_splits(
            [clips[place].label for place in usable], groups, [content[place] for place in usable], plan, given=given
        )
        splits, notes = divided.of_clip, divided.notes
    except UsageError as error:
        undivided = str(error)
    split_of = dict(zip(usable, splits, strict=True))
    rows = [
        _row(one, problems.get(place), split_of.get(place), checked[members[content[place]][0]].clip.path)
        if place in content
        else ManifestRow(one.clip.path, one.clip.label, one.clip.group, problem=problems[place])
        for place, one in enumerate(checked)
    ]
    torn = groups_in_two_splits(groups, given)
    return CheckReport(
        manifest=Manifest(tuple(rows)),
        same=tuple(one for one in same.values() if len(one.paths) > 1),
        short=tuple(clips[place].path for place in usable if _is_short(_info(checked[place]), spec)),
        small=tuple(clips[place].path for place in usable if _is_small(_info(checked[place]), spec)),
        file_notes=tuple((clips[place].path, note) for place in usable for note in _info(checked[place]).notes),
        split_groups=tuple((str(group), tuple(sides)) for group, sides in torn.items()),
        undivided=undivided,
        num_decoded=sum(one.num_decoded for one in checked),
        notes=(*notes, *alike_names([clip.label for clip in clips])),
    )


def _contents(readable: Sequence[CheckedClip]) -> list[int]:
    if not readable:
        return []
    thumbnails = np.stack([one.thumbnails for one in readable if one.thumbnails is not None])
    sha256 = [str(one.sha256) for one in readable]
    return same_content(sha256, [_info(one).num_frames for one in readable], thumbnails).tolist()


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
    """As `plan_views` sees it: a millisecond is the rounding of the file's times."""
    return spec.num_frames / spec.rate_in(info.fps) - info.duration_seconds > 0.001


def _is_too_elongated(info: VideoInfo, spec: InputSpec) -> bool:
    """As `ClipLoader` sees it."""
    height, width = spec.resize_to or resized_size(info.height, info.width, spec.short_side, spec.longer_side)
    return height * width > MAX_RESIZED_PIXELS


def _is_small(info: VideoInfo, spec: InputSpec) -> bool:
    return min(info.width, info.height) < spec.crop
