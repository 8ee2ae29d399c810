"""A clip with what it shows, and a whole list of them with what there is to say about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nonlocal_video.datasets.split_folders import TRAIN, VALIDATION
from nonlocal_video.inference.file_kinds import PassedOver


@dataclass(frozen=True)
class LabelledClip:
    """One clip and what it shows."""

    path: str
    label: str
    group: str | None = None
    """Clips that are not independent of each other share it: those of one person, or cut from one video."""
    split: str | None = None


@dataclass(frozen=True)
class LabelledSource:
    """The clips of a class tree or of a CSV."""

    clips: Sequence[LabelledClip]
    notes: tuple[str, ...] = ()
    """What was found beside them or taken for something, a sentence each."""
    passed_over: PassedOver = field(default_factory=PassedOver)
    splits_of_folders: bool = False
    """Whether the clips' splits are named by folders."""

    @property
    def labels(self) -> list[str]:
        """The classes of its clips, each once, sorted."""
        return sorted({clip.label for clip in self.clips})

    def to_divide(self, validation: str = VALIDATION) -> LabelledSource:
        """Return the same with the training folder's clips undivided, if the tree has none of clips to measure on.

        So a part of them is held out like of a tree without splits, and test clips stay out of it.

        Args:
            validation: The split to measure on.
        """
        splits = {clip.split for clip in self.clips}
        if not self.splits_of_folders or validation != VALIDATION or VALIDATION in splits or TRAIN not in splits:
            return self
        clips = [replace(clip, split=None) if clip.split == TRAIN else clip for clip in self.clips]
        note = "No folder is of clips to measure on: a part of the training clips is held out instead."
        return replace(self, clips=clips, notes=(*self.notes, note))
