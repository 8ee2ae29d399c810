"""Labelled clips, unlabelled clips and stills as one data set."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

from nonlocal_video.errors import UsageError
from nonlocal_video.training.dataset import ClipDataset, LoadingStatistics
from nonlocal_video.training.stills import StillDataset

Part = ClipDataset | StillDataset
"""`UnlabelledClips` are a `ClipDataset`, too."""


class TrainingSet(ConcatDataset[tuple[Tensor, int]]):
    """Parts one after another; each yields views for the same network, and their class or `UNLABELLED`.

    `set_epoch` goes to every part, and from there through shared memory to the workers. With a number of `views`, the
    random views of epoch e are those of epoch e % views: each clip has so many, and what a teacher says of them can be
    computed once and kept (`AnswerCache`).

    Attributes:
        parts: As they were given.
        spec: The view of all of them.
        labels: The classes of the labelled parts; none if there is no such part.
        classes: (clips,) the class of each clip, `UNLABELLED` for one without.
    """

    def __init__(self, parts: Sequence[Part], *, views: int | None = None) -> None:
        """Put parts together.

        Args:
            parts: At least one.
            views: Random views that each clip has; None for new ones in every epoch.

        Raises:
            UsageError: There is no part, they yield different views, or labelled ones have different classes.
        """
        if not parts:
            raise UsageError("parts is empty: there is nothing to train on.")
        if views is not None and views < 1:
            raise UsageError(f"{views = } should be at least 1, or None.")
        super().__init__(parts)
        self.parts, self.views, self.spec = tuple(parts), views, parts[0].spec
        for part in parts[1:]:
            if part.spec != self.spec:
                raise UsageError(f"One part yields {self.spec} and another {part.spec}; make all for the same view.")
        label_lists = list(dict.fromkeys(part.labels for part in parts if part.labels))
        if len(label_lists) > 1:
            raise UsageError(
                f"One part has the classes {label_lists[0]} and another {label_lists[1]}; give all the same."
            )
        self.labels = label_lists[0] if label_lists else ()
        self.classes = torch.cat([part.classes for part in parts])

    def set_epoch(self, epoch: int) -> None:
        """Before the loader is asked for the epoch's first batch."""
        for part in self.parts:
            part.set_epoch(self._view_of(epoch))

    def view_name(self, place: int, epoch: int) -> str:
        """What tells a clip's view of an epoch from all others."""
        number = bisect_right(self.cumulative_sizes, place)
        return self.parts[number].view_name(
            place - (self.cumulative_sizes[number - 1] if number else 0), self._view_of(epoch)
        )

    @property
    def statistics(self) -> LoadingStatistics:
        """Of all parts, added up."""
        of_parts = [part.statistics for part in self.parts]
        return LoadingStatistics(
            **{field.name: sum(getattr(one, field.name) for one in of_parts) for field in fields(LoadingStatistics)}
        )

    def close(self) -> None:
        """End this process's decoding children; each is started again when it is needed."""
        for part in self.parts:
            part.close()

    def _view_of(self, epoch: int) -> int:
        return epoch if self.views is None else epoch % self.views
