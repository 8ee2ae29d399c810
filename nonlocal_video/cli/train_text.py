"""A run on the terminal: how far it is, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from nonlocal_video.training.engine import Progress as RunProgress
    from nonlocal_video.training.engine import TrainResult
    from nonlocal_video.training.run_folder import RunFolder


class TrainProgress:
    """A bar on standard error when that is a terminal, and a line for each epoch; a context manager."""

    def __init__(self, *, shown: bool) -> None:
        """`shown` is false in all but one of the processes that train together."""
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
        """A line that stays."""
        if self._shown:
            self._console.print(sentence, soft_wrap=True, highlight=False, markup=False)

    def features(self, done: int, of: int) -> None:
        self._bar.update(self._features, completed=done, total=of, visible=done < of)

    def update(self, progress: RunProgress) -> None:
        self._bar.update(self._steps, completed=progress.step, total=progress.steps, visible=True)
        if progress.metrics:
            self.notify(f"epoch {progress.epoch:g}: {_in_words(progress.metrics)}")


def say_result(folder: RunFolder, result: TrainResult) -> None:
    """What was reached and what to do with it, on standard output."""
    if not result.finished:
        typer.echo(f"Stopped after step {result.step}. The same command with --resume continues.", err=True)
        return
    if result.early:
        typer.echo("Stopped early: it got no better.")
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
