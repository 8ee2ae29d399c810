"""Labelled clips, unlabelled clips and images as one data set."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import fields
from itertools import accumulate

import torch
from torch import Tensor

from nonlocal_video.errors import UsageError
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.training.images import ImageDataset
from nonlocal_video.training.loading_statistics import LoadingStatistics

Part = ClipDataset | ImageDataset
"""A part of a `MixedDataset`; `UnlabelledClips` is a `ClipDataset` too."""


class MixedDataset:
    """Concatenation of data sets that yield views for the same network, with their class or `UNLABELLED`.

    With `views`, each clip has that many random views: epoch e uses those of epoch e % views, so that a teacher's
    outputs can be computed once and cached (`AnswerCache`).

    Attributes:
        parts: Data sets, as given.
        spec: Input that all of them are made for.
        labels: Classes of the labelled parts; empty without any.
        classes: (clips,) class of each clip, `UNLABELLED` for a clip without one.
    """

    def __init__(self, parts: Sequence[Part], *, views: int | None = None) -> None:
        """Concatenate data sets.

        Args:
            parts: Data sets, at least one.
            views: Number of random views of each clip; None for new views in every epoch.

        Raises:
            UsageError: There is no part, the inputs differ, or the classes of labelled parts differ.
        """
        if not parts:
            raise UsageError("parts is empty: there is nothing to train on.")
        if views is not None and views < 1:
            raise UsageError(f"{views = } should be at least 1, or None.")
        self._ends = list(accumulate(map(len, parts)))
        self.parts, self.views, self.spec = tuple(parts), views, parts[0].spec
        for part in parts[1:]:
            if part.spec != self.spec:
                raise UsageError(
                    f"One part is made for {self.spec} and another for {part.spec}; make all for the same input."
                )
        label_lists = list(dict.fromkeys(part.labels for part in parts if part.labels))
        if len(label_lists) > 1:
            raise UsageError(
                f"One part has the classes {label_lists[0]} and another {label_lists[1]}; all need the same."
            )
        self.labels = label_lists[0] if label_lists else ()
        self.classes = torch.cat([part.classes for part in parts])

    def __len__(self) -> int:
        return self._ends[-1]

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return the view of a clip in an epoch, and the clip's class or `UNLABELLED`.

        Raises:
            VideoError: A clip that was readable when checked cannot be read now.
        """
        part, index = self._part(index)
        return part.view(index, self._view_of(epoch))

    def pixels(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return the view before normalisation, uint8 (T, S, S, 3), and the class.

        Raises:
            VideoError: As for `view`.
        """
        part, index = self._part(index)
        return part.pixels(index, self._view_of(epoch))

    def view_name(self, index: int, epoch: int) -> str:
        """Return a unique name for the view of a clip in an epoch."""
        part, index = self._part(index)
        return part.view_name(index, self._view_of(epoch))

    def path(self, index: int) -> str:
        """Return the path of a clip."""
        part, index = self._part(index)
        return part.rows[index].path

    @property
    def statistics(self) -> LoadingStatistics:
        """Loading statistics, summed over all parts."""
        statistics = [part.statistics for part in self.parts]
        return LoadingStatistics(
            **{field.name: sum(getattr(one, field.name) for one in statistics) for field in fields(LoadingStatistics)}
        )

    def close(self) -> None:
        """End the decoding processes; they are started again on demand."""
        for part in self.parts:
            part.close()

    def _part(self, index: int) -> tuple[Part, int]:
        """Return the part that has a clip, and the clip's index in it."""
        number = bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)

    def _view_of(self, epoch: int) -> int:
        return epoch if self.views is None else epoch % self.views
