"""Unlabelled clips, for distillation from a teacher."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace

import torch

from nonlocal_video.datasets.check import check_clips
from nonlocal_video.datasets.labelled import LabelledClip
from nonlocal_video.datasets.manifest import TRAIN, ManifestRow
from nonlocal_video.datasets.report import CheckReport, make_report
from nonlocal_video.datasets.splits import SplitPlan
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.files import Selection, find_files
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.augment import Augmentation
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.training.disk_cache import DiskCache
from nonlocal_video.training.objective import UNLABELLED
from nonlocal_video.video.decode import DecoderChoice, VideoReader
from nonlocal_video.video.limits import DecodeLimits
from nonlocal_video.video.region import Region

NO_LABEL = "unlabelled"
"""Value of the manifest's column `label` for unlabelled clips."""
_ALL_CLIPS = Selection()


def check_unlabelled(
    paths: Iterable[str | os.PathLike[str]],
    spec: InputSpec,
    readers: Iterable[VideoReader],
    *,
    selection: Selection = _ALL_CLIPS,
    passed_over: PassedOver | None = None,
    labelled: Iterable[ManifestRow] = (),
    region: Region | None = None,
    every_frame: bool = False,
) -> CheckReport:
    """Check unlabelled clips, as `check` does labelled ones.

    Args:
        paths: Files, folders, patterns and URLs, as for `classify`.
        spec: Input of the network.
        readers: Readers, one per file read in parallel; closed at the end.
        selection: Which files to take; in folders, files that are not videos by name are skipped.
        passed_over: Counts the skipped files.
        labelled: Labelled clips of the run; files among them are marked as unusable here.
        region: Part of the frames that is seen; None is all of them.
        every_frame: Whether to decode whole clips.

    Returns:
        A report whose manifest has a row for every file, including unreadable ones.
    """
    clips = (
        LabelledClip(path, NO_LABEL, split=TRAIN)
        for path in find_files(paths, selection=selection, passed_over=passed_over)
    )
    with closing(check_clips(clips, readers, every_frame=every_frame)) as checked:
        report = make_report(list(checked), spec, SplitPlan(), region=region)
    known = {row.sha256: row.path for row in labelled if row.sha256}
    rows = tuple(
        replace(row, split=None, problem=f"labelled: it is the labelled clip {known[row.sha256]!r}.")
        if row.sha256 in known and row.usable
        else row
        for row in report.manifest.rows
    )
    counts = {} if passed_over is None else passed_over.counts
    return replace(report, manifest=replace(report.manifest, rows=rows), passed_over=counts)


class UnlabelledClips(ClipDataset):
    """Data set of unlabelled clips: views as in `ClipDataset`, with the class `UNLABELLED`.

    All clips may be flipped, as the teacher sees the flipped view. Statistics, cache and workers are as in
    `ClipDataset`.
    """

    def __init__(
        self,
        rows: Sequence[ManifestRow],
        spec: InputSpec,
        *,
        augmentation: Augmentation | None = None,
        region: Region | None = None,
        seed: int = 0,
        cache: DiskCache | None = None,
        decoder: DecoderChoice = "auto",
        limits: DecodeLimits | None = None,
    ) -> None:
        """Prepare the data set, as for `ClipDataset`; labels of the rows are ignored."""
        if augmentation is not None:
            augmentation = replace(augmentation, left_right_classes=())
        super().__init__(
            [replace(row, label=NO_LABEL) for row in rows],
            (NO_LABEL,),
            spec,
            augmentation=augmentation,
            region=region,
            seed=seed,
            cache=cache,
            decoder=decoder,
            limits=limits,
        )
        self.labels = ()
        self.classes = torch.full((len(rows),), UNLABELLED)
