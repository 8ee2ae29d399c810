"""Progress and result of a training run on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from nonlocal_video.training.engine import TrainingProgress, TrainResult
    from nonlocal_video.training.run_folder import RunFolder


class TrainProgress:
    """Progress bar on standard error, if that is a terminal, and a line for each epoch. A context manager."""

    def __init__(self, *, shown: bool) -> None:
        """Make the bar.

        Args:
            shown: Whether to print; false in all but one of several training processes.
        """
        self._shown = shown
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not (shown and self._console.is_terminal),
        )
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
            self._console.print(sentence, soft_wrap=True, highlight=False, markup=False)

    def features(self, done: int, total: int) -> None:
        """Show the number of cached views."""
        self._bar.update(self._features, completed=done, total=total, visible=done < total)

    def update(self, progress: TrainingProgress) -> None:
        """Show the progress of training, and the metrics after an epoch."""
        self._bar.update(self._steps, completed=progress.step, total=progress.steps, visible=True)
        if progress.metrics:
            self.notify(f"epoch {progress.epoch:g}: {_in_words(progress.metrics)}")


def print_result(folder: RunFolder, result: TrainResult) -> None:
    """Print the result of a run and how to use it, on standard output."""
    if not result.finished:
        typer.echo(f"Stopped after step {result.step}. The same command with --resume continues.", err=True)
        return
    if result.early:
        typer.echo("Stopped early, for lack of improvement.")
    typer.echo(f"Best after epoch {result.best['epoch']:g}: {_in_words(result.best)}")
    typer.echo(f"Written to {folder.path}: {folder.best.name}, {folder.curves.name}, {folder.readme.name} and more.")
    typer.echo(f"Try it: nonlocal-video classify CLIP --model {folder.path}")


def _in_words(metrics: Mapping[str, float]) -> str:
    words = [f"loss {metrics['train/loss']:.4f} in training, {metrics['validation/loss']:.4f} on held-out clips"]
    words += [
        f"{name.removeprefix('validation/')} {value:.1%}"
        for name, value in metrics.items()
        if name.startswith("validation/top") or name == "validation/mean_class"
    ]
    return ", ".join(words)
