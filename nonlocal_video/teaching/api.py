"""Teach a model by a few examples: from a folder or a list of clips to a run's folder, in one pass."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.load import load
from nonlocal_video.inference.runtimes.choice import RuntimeOption
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.teaching.examples import read_examples
from nonlocal_video.teaching.folder import TaughtFolder
from nonlocal_video.teaching.lessons import (
    TeachCallback,
    directions_of_head,
    learn,
    run_settings,
    see_examples,
    write_run,
)
from nonlocal_video.teaching.report import TeachReport
from nonlocal_video.video.decode import DecoderChoice
from nonlocal_video.video.region import Region, RegionLike
from nonlocal_video.zoo.catalogue import DEFAULT

_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class TaughtRun:
    """A taught run's folder, which `load` and `evaluate` take, and what teaching found."""

    path: Path
    report: TeachReport
    region: Region | None = None
    """Part of the frame in which the examples were seen; None is all of it."""

    @property
    def accuracy(self) -> float | None:
        """Share of examples that are right when their group is left out; None where none could be."""
        return self.report.accuracy

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        known = "unknown" if self.accuracy is None else f"{self.accuracy:.3f}"
        return f"TaughtRun({str(self.path)!r}, {len(self.report.counts)} classes, accuracy={known})"


def teach(
    source: _Path,
    *,
    output: _Path,
    model: _Path = "default",
    views: str = "1x1",
    fast: bool = False,
    region: RegionLike = None,
    device: str = "auto",
    runtime: RuntimeOption = "auto",
    decoder: DecoderChoice = "auto",
    workers: int | None = None,
    batch_size: int | None = None,
    all_files: bool = False,
    ignore_columns: Sequence[str] = (),
    resume: bool = False,
    callback: TeachCallback | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TaughtRun:
    """Teach a model new classes by a few examples of each, as the command `teach` does.

    The network sees every example once and is not trained; a new linear head is fitted to its features. With `resume`
    examples may have been added, changed or removed, and only new ones are seen.

    Args:
        source: A folder with one folder of clips a class, a CSV `path,label[,group]`, or a CSV of segments
            `path,start_seconds,end_seconds,label[,group]`. A clip may have several labels in a CSV. Clips under the
            label `none of these` show no class.
        output: Folder of the run: weights, features, report, model card.
        model: What to start from: a catalogue name, a weights file, or a run's folder.
        views: Views of an example, CLIPSx1, as those that `classify` will be asked with; 1x1 is the middle.
        fast: Teach for the model's cheaper view.
        region: Part of the frame that is looked at, as for `classify`, which has to be asked with the same.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        runtime: As for `load`.
        decoder: As for `load`.
        workers: Decoding processes beside the network; None is as many as suit the device.
        batch_size: Views in one forward pass; None is as many as suit the device.
        all_files: Try files of every kind, not only of names that are videos'.
        ignore_columns: Columns of the CSV that mean nothing here.
        resume: Teach the run in `output` again.
        callback: Told how far it is.
        should_stop: Asked before each view; what is done is kept, and `resume` continues.

    Raises:
        UsageError: The examples or the settings do not fit, or a class has no example that can be read.
        ModelError: The model cannot be had.
        OutputError: The folder cannot be written.
        DeviceError: The device has failed; `resume` does the rest.
        KeyboardInterrupt: `should_stop` ended it.

    Example:
        >>> import nonlocal_video as nlv
        >>> run = nlv.teach("examples/", output="runs/mine")
        >>> run.report.accuracy, run.report.interval
        (0.93, (0.85, 0.99))
        >>> nlv.load(run).classify("clip.mp4").unknown
        False
    """
    callback = callback or TeachCallback()
    count = ViewCount.parse(views)
    if count.num_crops != 1:
        raise UsageError(f"views = {views!r}: an example is taught by views of one crop, such as 1x1 or 3x1.")
    region = Region.parse(region)
    found = read_examples(source, all_files=all_files, ignore_columns=ignore_columns)
    callback.on_source(found)
    name = model if isinstance(model, str) else Path(model)
    with load(name, device=device, runtime=runtime, decoder=decoder) as recognizer:
        recognizer.card.view(fast=fast)  # refuses `fast`, if it has to, before anything is written
        directions = directions_of_head(recognizer)
        settings = run_settings(recognizer, str(model), views=str(count), fast=fast, region=region)
        with TaughtFolder(output).open(settings, command=sys.argv, resume=resume) as folder:
            seen = see_examples(
                recognizer,
                found,
                folder,
                num_views=count.num_clips,
                fast=fast,
                region=region,
                workers=workers,
                batch_size=batch_size,
                callback=callback,
                should_stop=should_stop,
            )
            lesson, report = learn(seen, found, directions, is_default=recognizer.card.name == DEFAULT)
            write_run(folder, recognizer, name, lesson, report, found, seen, views=str(count), fast=fast, region=region)
    return TaughtRun(folder.path, report, region)
