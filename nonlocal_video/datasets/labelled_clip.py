"""Labelled clips, and a source of them with notes for the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nonlocal_video.datasets.split_folders import TRAIN, VALIDATION
from nonlocal_video.inference.file_kinds import PassedOver

NONE_OF_THESE = "none of these"
"""Folder or label of clips that show none of the classes; case, spaces, `_` and `-` do not matter."""


def is_none_of_these(label: str) -> bool:
    """Return whether a label or folder name means that a clip shows none of the classes."""
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split()) == NONE_OF_THESE


@dataclass(frozen=True)
class LabelledClip:
    """A clip with its label."""

    path: str
    """Path of the file, or URL of object storage."""
    label: str
    """Class of the clip."""
    group: str | None = None
    """Group of dependent clips, such as those of one person or one source video; None for an independent clip."""
    split: str | None = None
    """Split given by the source, or None."""


@dataclass(frozen=True)
class LabelledSource:
    """Labelled clips from class folders or a CSV."""

    clips: Sequence[LabelledClip]
    """Clips in the order of the source."""
    notes: tuple[str, ...] = ()
    """Notes for the user on how the source was read, one sentence each."""
    passed_over: PassedOver = field(default_factory=PassedOver)
    """Counts of skipped files and folders, by kind."""
    splits_of_folders: bool = False
    """Whether folders give the splits."""

    @property
    def labels(self) -> list[str]:
        """Classes of the clips, sorted."""
        return sorted({clip.label for clip in self.clips})

    def to_divide(self, validation: str = VALIDATION) -> LabelledSource:
        """Return the source without the split of its training folder, if there is no validation folder.

        A part of these clips is then held out for validation, as in a tree without splits; test clips keep their split.

        Args:
            validation: Name of the validation split.
        """
        splits = {clip.split for clip in self.clips}
        if not self.splits_of_folders or validation != VALIDATION or VALIDATION in splits or TRAIN not in splits:
            return self
        clips = [replace(clip, split=None) if clip.split == TRAIN else clip for clip in self.clips]
        note = "There is no validation folder: a part of the training clips is held out for validation."
        return replace(self, clips=clips, notes=(*self.notes, note))
