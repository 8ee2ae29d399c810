"""Train a model on labelled clips: from a folder or a list of clips to a run's folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nonlocal_video.datasets.check import CheckedClip, check_clips
from nonlocal_video.datasets.labelled import read_source
from nonlocal_video.datasets.labelled_clip import LabelledSource
from nonlocal_video.datasets.manifest import Manifest, is_manifest, read_manifest
from nonlocal_video.datasets.report import CheckReport, make_report
from nonlocal_video.datasets.splits import SplitPlan
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.files import Selection
from nonlocal_video.inference.prediction import printable
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.config import MAY_DIFFER
from nonlocal_video.training.distributed import check_installed, make_fabric, waiting_for_all
from nonlocal_video.training.engine import TrainingProgress, TrainResult
from nonlocal_video.training.images import ImageRow, check_images
from nonlocal_video.training.request import VALIDATION_SHARE, VALIDATION_SPLIT, TrainRequest, viewed_input
from nonlocal_video.training.run import RunSettings, train_run
from nonlocal_video.training.run_data import RunData, check_clips_fit, without_misfits
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.training.unlabelled import check_unlabelled
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.region import Region, RegionLike

_NUM_READERS = 2
_Path = str | os.PathLike[str]


class TrainCallback:
    """Progress of `train`; override the methods of interest."""

    def on_source(self, found: LabelledSource) -> None:
        """Take the labelled clips that were found, before they are checked."""

    def on_check(self, clip: CheckedClip, done: int, total: int) -> None:
        """Take a checked clip, and how many of all are done."""

    def on_report(self, report: CheckReport, spec: InputSpec) -> None:
        """Take what the check of the labelled clips found."""

    def on_unlabelled(self, count: int, problems: Sequence[tuple[str, str]], passed_over: PassedOver) -> None:
        """Take the number of files without labels, and path and problem of those that cannot be used."""

    def on_features(self, done: int, total: int) -> None:
        """Take how many views are done while features of frozen layers are computed."""

    def on_progress(self, progress: TrainingProgress) -> None:
        """Take where the run is, after every step and every validation."""

    def notify(self, sentence: str) -> None:
        """Take a sentence about what was loaded or decided."""


@dataclass(frozen=True)
class TrainedRun:
    """A run's folder, which `load` and `evaluate` take, and how the run ended."""

    path: Path
    result: TrainResult
    region: Region | None = None
    """Part of the frame that it was trained on; None is all of it."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics of the best weights, such as `validation/top1`, with `epoch` and `step`."""
        return self.result.best

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def train(
    source: _Path | None = None,
    *,
    output: _Path,
    model: _Path | None = None,
    recipe: _Path | None = None,
    stage: Literal["head", "top", "all"] | None = None,
    epochs: int | None = None,
    batch_size: int | Literal["auto"] | None = None,
    learning_rate: float | None = None,
    region: RegionLike = None,
    seed: int | None = None,
    workers: int | None = None,
    settings: Mapping[str, Any] | None = None,
    progressive: bool = False,
    teacher: _Path | None = None,
    unlabelled: Sequence[str] = (),
    images: Sequence[str] = (),
    validation: str = VALIDATION_SPLIT,
    validation_share: float = VALIDATION_SHARE,
    fast: bool = False,
    new_weights: bool = False,
    device: str = "auto",
    all_files: bool = False,
    ignore_columns: Sequence[str] = (),
    resume: bool = False,
    callback: TrainCallback | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedRun:
    """Train a model on labelled clips, as the command `train` does, or continue an interrupted run.

    Args:
        source: A folder with one folder of clips for each class, a CSV, or a manifest that `check` wrote.
        output: Folder of the run: weights, metrics, curves, model card.
        model: What to start from: a catalogue name, a weights file, a run's folder, or a YAML file of a new network.
        recipe: YAML file of settings; arguments given here take precedence.
        stage: Which layers are trained: the new head, the last stage as well, or all.
        epochs: Number of epochs (default: 20).
        batch_size: Clips in one forward pass, or `auto` for as many as fit into memory (default: 8).
        learning_rate: Peak learning rate (default: 0.001).
        region: Part of the frame of all clips that is seen, as for `classify`, which has to be asked with the same.
        seed: Random seed (default: 0).
        workers: Processes that load clips (default: 2).
        settings: Any other setting by its dotted name, such as `{"augmentation.flip": 0}`.
        progressive: Non-local blocks join stage by stage.
        teacher: Model whose answers are learned as well; its classes become the model's.
        unlabelled: Folders of clips for the teacher.
        images: Folders of pictures for the teacher.
        validation: Split of the validation set, such as `fold1`.
        validation_share: Fraction of clips held out for validation, where no list divides them.
        fast: Train on the model's cheaper view.
        new_weights: Start from random weights instead of the model's.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        all_files: Try files of every kind, not only of names that are videos'.
        ignore_columns: Columns of the CSV that mean nothing here.
        resume: Continue the run in `output`, with its settings; only `settings` that may differ count.
        callback: Told how far the run is.
        should_stop: Asked after every clip of the check and after every step; a state is saved, and `resume` continues.

    Raises:
        UsageError: Settings, clips and model do not fit together, or a package is missing.
        ModelError: The model cannot be had.
        TrainingError: The loss is not finite, or the device's memory is too small.
        DeviceError: The device has failed; `resume` continues after the last saved step.
        VideoError: A clip cannot be read any more.
        OutputError: The folder cannot be written.
        KeyboardInterrupt: `should_stop` ended the check; nothing was written.

    Example:
        >>> import nonlocal_video as nlv
        >>> run = nlv.train("clips/", output="runs/mine", stage="head", epochs=5)
        >>> run.metrics["validation/top1"]
        0.9
        >>> nlv.load(run).classify("clip.mp4").top1.label
        'waving'
    """
    check_installed()  # before all clips are checked
    named = {"stage": stage, "epochs": epochs, "learning_rate": learning_rate, "seed": seed, "workers": workers}
    values = {**(settings or {}), **{name: value for name, value in named.items() if value is not None}}
    if batch_size is not None:
        values["batch_size"] = None if batch_size == "auto" else batch_size
    if region is not None:
        seen = Region.parse(region)
        values["region"] = None if seen is None else str(seen)
    request = TrainRequest(
        source=_text(source),
        model=_text(model),
        recipe=None if recipe is None else Path(recipe),
        values=values,
        progressive=progressive,
        teacher=_text(teacher),
        unlabelled=tuple(unlabelled),
        images=tuple(images),
        validation=validation,
        validation_share=validation_share,
        fast=fast,
        new_weights=new_weights,
        device=device,
        all_files=all_files,
        ignore_columns=tuple(ignore_columns),
    )
    callback = callback or TrainCallback()
    folder = RunFolder(Path(output))
    first = int(os.environ.get("RANK", "0")) == 0
    with ExitStack() as stack:
        if resume:
            of_run = request.resumed_settings(folder)
            if first:
                may_differ = tuple(f"train.{name}" for name in MAY_DIFFER)
                stack.enter_context(folder.open(of_run.to_dict(), command=sys.argv, may_differ=may_differ))
                for note in folder.notes:
                    callback.notify(note)
        else:
            of_run = request.settings()
        fabric = make_fabric(of_run.device, of_run.train)
        with waiting_for_all(fabric):
            if first and not resume:
                folder.refuse_occupied()  # before all clips are checked
                clips = _checked_clips(request, of_run, callback, should_stop)
                created = folder.create(
                    of_run.to_dict(),
                    clips.labelled,
                    command=sys.argv,
                    write_more=lambda: clips.write_unlabelled(folder),
                )
                stack.enter_context(created)
        result = train_run(
            folder,
            of_run,
            RunData.read(folder),
            fabric,
            resume=resume,
            on_progress=callback.on_progress,
            on_features=callback.on_features,
            notify=callback.notify,
            should_stop=should_stop,
        )
    return TrainedRun(folder.path, result, of_run.train.seen_region)


def _text(path: _Path | None) -> str | None:
    return None if path is None else os.fspath(path)


def _checked_clips(
    request: TrainRequest, settings: RunSettings, callback: TrainCallback, should_stop: Callable[[], bool]
) -> RunData:
    """Check all clips of a new run, and refuse those that no run can be made of."""
    if settings.train.distillation is None and (request.unlabelled or request.images):
        raise UsageError("Unlabelled clips and stills want a teacher that says what they show: --teacher.")
    spec = viewed_input(settings)
    region, labelled = settings.train.seen_region, Manifest(())
    if request.source is not None:
        labelled = _labelled(request, request.source, spec, settings, callback, should_stop)
    clips = RunData(labelled, _unlabelled(request, spec, region, labelled, callback), _images(request, callback))
    check_clips_fit(settings.train, clips, validation=settings.validation)
    return clips


def _labelled(
    request: TrainRequest,
    source: str,
    spec: InputSpec,
    settings: RunSettings,
    callback: TrainCallback,
    should_stop: Callable[[], bool],
) -> Manifest:
    """Read a manifest, or make one of clips that were not checked yet."""
    found = None
    if not is_manifest(source):
        found = read_source(source, all_files=request.all_files, ignore_columns=request.ignore_columns)
        found = found.to_divide(settings.validation)
    clips = [] if found is None else found.clips
    if request.validation_share != VALIDATION_SHARE and all(clip.split for clip in clips):
        raise UsageError(f"The clips of {source!r} are divided already; omit --validation-share.")
    region = settings.train.seen_region
    if found is None:
        return _fitting(read_manifest(source), spec, region, callback)
    callback.on_source(found)
    callback.notify(f"Checking {source} first; `nonlocal-video check` shows more and can be run before.")
    checked: list[CheckedClip] = []
    with closing(check_clips(clips, [VideoReader() for _ in range(min(_NUM_READERS, len(clips)))])) as outcomes:
        for clip in outcomes:
            checked.append(clip)
            callback.on_check(clip, len(checked), len(clips))
            if should_stop():
                raise KeyboardInterrupt
    plan = SplitPlan(request.validation_share, None, settings.train.seed)
    report = make_report(checked, spec, plan, region=region)
    callback.on_report(report, spec)
    if report.undivided:
        raise UsageError(f"{source!r} cannot be divided into a training set and a validation set: {report.undivided}")
    return report.manifest


def _fitting(manifest: Manifest, spec: InputSpec, region: Region | None, callback: TrainCallback) -> Manifest:
    """Leave out clips of a manifest that the model cannot see, and name them."""
    fitting = without_misfits(manifest, spec, region)
    for before, row in zip(manifest.rows, fitting.rows, strict=True):
        if row is not before:
            callback.notify(f"not used: {printable(row.path)}: {row.problem}")
    return fitting


def _unlabelled(
    request: TrainRequest, spec: InputSpec, region: Region | None, labelled: Manifest, callback: TrainCallback
) -> Manifest:
    if not request.unlabelled:
        return Manifest(())
    passed_over = PassedOver()
    report = check_unlabelled(
        request.unlabelled,
        spec,
        [VideoReader() for _ in range(_NUM_READERS)],
        selection=Selection(all_files=request.all_files),
        passed_over=passed_over,
        labelled=labelled.usable,
        region=region,
    )
    rows = report.manifest.rows
    callback.on_unlabelled(len(rows), [(row.path, row.problem) for row in rows if row.problem], passed_over)
    return report.manifest


def _images(request: TrainRequest, callback: TrainCallback) -> tuple[ImageRow, ...]:
    if not request.images:
        return ()
    passed_over = PassedOver()
    selection = Selection(all_files=request.all_files, pictures=True)
    rows = check_images(request.images, selection=selection, passed_over=passed_over)
    callback.on_unlabelled(len(rows), [(row.path, row.problem) for row in rows if row.problem], passed_over)
    return tuple(rows)
