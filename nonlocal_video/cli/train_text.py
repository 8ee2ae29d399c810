"""Progress and result of a training run on the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from nonlocal_video.cli.check import print_source
from nonlocal_video.cli.check_text import print_report
from nonlocal_video.cli.terminal import progress_bar, table_console
from nonlocal_video.datasets.check import CheckedClip
from nonlocal_video.datasets.labelled_clip import LabelledSource
from nonlocal_video.datasets.report import CheckReport
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.api import TrainCallback, TrainedRun
from nonlocal_video.training.engine import TrainingProgress
from nonlocal_video.training.run_folder import RunFolder

TELL_EVERY_SECONDS = 30.0
"""Seconds between two lines about progress where there is no bar: a log that stands still looks like a hang."""
CONTINUES = "`train --resume` with this --output continues"


class TrainProgress(TrainCallback):
    """Progress bar on standard error, if that is a terminal, and a line for each epoch. A context manager."""

    def __init__(self, *, shown: bool) -> None:
        """Make the bar.

        Args:
            shown: Whether to print; false in all but one of several training processes.
        """
        self._shown, self._told_at = shown, time.monotonic()
        self._bar = progress_bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            shown=shown,
        )
        self._checked = self._bar.add_task("clips checked", total=None, visible=False)
        self._features = self._bar.add_task("features", total=None, visible=False)
        self._steps = self._bar.add_task("steps", total=None, visible=False)

    def __enter__(self) -> TrainProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def notify(self, sentence: str) -> None:
        """Print a line above the bar."""
        if self._shown:
            self._bar.console.print(sentence, soft_wrap=True, highlight=False, markup=False)

    def on_source(self, found: LabelledSource) -> None:
        print_source(found)

    def on_check(self, clip: CheckedClip, done: int, total: int) -> None:
        self._bar.update(self._checked, completed=done, total=total, visible=done < total)
        self._tell("clips checked", done, total)

    def on_report(self, report: CheckReport, spec: InputSpec) -> None:
        print_report(report, spec, table_console(), every_frame=False)

    def on_unlabelled(self, count: int, problems: Sequence[tuple[str, str]], passed_over: PassedOver) -> None:
        for path, problem in problems:
            self.notify(f"not used: {path}: {problem}")
        self.notify(f"{count - len(problems)} of {count} files without labels can be used.")
        if passed_over:
            self.notify(passed_over.sentence())

    def on_features(self, done: int, total: int) -> None:
        self._bar.update(self._features, completed=done, total=total, visible=done < total)
        self._tell("features", done, total)

    def on_progress(self, progress: TrainingProgress) -> None:
        self._bar.update(self._steps, completed=progress.step, total=progress.steps, visible=True)
        if progress.metrics:
            self.notify(f"epoch {progress.epoch:g}: {_in_words(progress.metrics)}")

    def _tell(self, what: str, done: int, total: int) -> None:
        """Print how far it is, from time to time, if no bar shows it."""
        if self._bar.disable and time.monotonic() - self._told_at >= TELL_EVERY_SECONDS:
            self._told_at = time.monotonic()
            self.notify(f"{what}: {done:,} of {total:,}")


def print_result(run: TrainedRun) -> None:
    """Print the result of a run and how to use it, on standard output."""
    folder, result = RunFolder(run.path), run.result
    if not result.finished:
        typer.echo(f"Stopped after step {result.step}. {CONTINUES}.", err=True)
        return
    if result.early:
        typer.echo("Stopped early, for lack of improvement.")
    typer.echo(f"Best after epoch {result.best['epoch']:g}: {_in_words(result.best)}")
    typer.echo(f"Written to {folder.path}: {folder.best.name}, {folder.curves.name}, {folder.readme.name} and more.")
    asked = "" if run.region is None else f" --region {run.region}"
    typer.echo(f"Try it: nonlocal-video classify CLIP --model {folder.path}{asked}")


def _in_words(metrics: Mapping[str, float]) -> str:
    words = [f"loss {metrics['train/loss']:.4f} in training, {metrics['validation/loss']:.4f} on held-out clips"]
    words += [
        f"{name.removeprefix('validation/')} {value:.1%}"
        for name, value in metrics.items()
        if name.startswith("validation/top") or name == "validation/mean_class"
    ]
    return ", ".join(words)
