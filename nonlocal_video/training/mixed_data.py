"""Labelled clips, unlabelled clips and stills as one data set."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import fields
from itertools import accumulate

import torch
from torch import Tensor

from nonlocal_video.errors import UsageError
from nonlocal_video.training.data import ClipDataset, LoadingStatistics
from nonlocal_video.training.images import ImageDataset

Part = ClipDataset | ImageDataset
"""`UnlabelledClips` are a `ClipDataset`, too."""


class MixedDataset:
    """Parts one after another; each yields views for the same network, and their class or `UNLABELLED`.

    With a number of `views`, the random views of epoch e are those of epoch e % views: each clip has so many, and what
    a teacher says of them can be computed once and kept (`AnswerCache`).

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
        self._ends = list(accumulate(map(len, parts)))
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

    def __len__(self) -> int:
        return self._ends[-1]

    def view(self, place: int, epoch: int) -> tuple[Tensor, int]:
        """A clip as it is seen in an epoch, and its class or `UNLABELLED`.

        Raises:
            VideoError: It could be read when it was checked and cannot be read now.
        """
        part, place = self._part(place)
        return part.view(place, self._view_of(epoch))

    def pixels(self, place: int, epoch: int) -> tuple[Tensor, int]:
        """The same before it is normalised, uint8 (T, S, S, 3).

        Raises:
            VideoError: As for `view`.
        """
        part, place = self._part(place)
        return part.pixels(place, self._view_of(epoch))

    def view_name(self, place: int, epoch: int) -> str:
        """What tells a clip's view of an epoch from all others."""
        part, place = self._part(place)
        return part.view_name(place, self._view_of(epoch))

    def path(self, place: int) -> str:
        """Path of a clip."""
        part, place = self._part(place)
        return part.rows[place].path

    @property
    def statistics(self) -> LoadingStatistics:
        """Statistics of all parts, added up."""
        of_parts = [part.statistics for part in self.parts]
        return LoadingStatistics(
            **{field.name: sum(getattr(one, field.name) for one in of_parts) for field in fields(LoadingStatistics)}
        )

    def close(self) -> None:
        """End this process's decoding children; each is started again when it is needed."""
        for part in self.parts:
            part.close()

    def _part(self, place: int) -> tuple[Part, int]:
        """The part that has a clip, and the clip's place in it."""
        number = bisect_right(self._ends, place)
        return self.parts[number], place - (self._ends[number - 1] if number else 0)

    def _view_of(self, epoch: int) -> int:
        return epoch if self.views is None else epoch % self.views
