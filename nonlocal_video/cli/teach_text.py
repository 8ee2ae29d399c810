"""Progress and report of `teach` on the terminal."""

from __future__ import annotations

from types import TracebackType

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from nonlocal_video.cli.terminal import progress_bar, table_console
from nonlocal_video.cli.text import shown
from nonlocal_video.errors import VideoError
from nonlocal_video.teaching.api import TaughtRun
from nonlocal_video.teaching.examples import ExampleSet
from nonlocal_video.teaching.lessons import TeachCallback
from nonlocal_video.teaching.model_card import accuracy_in_words


class TeachProgress(TeachCallback):
    """Progress bar on standard error, if that is a terminal. A context manager."""

    def __init__(self) -> None:
        """Make the bar."""
        self._bar = progress_bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("views seen", total=None)

    def __enter__(self) -> TeachProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def notify(self, sentence: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(sentence, soft_wrap=True, highlight=False, markup=False)

    def on_source(self, found: ExampleSet) -> None:
        """Say what was found."""
        self.notify(f"{len(found)} examples of {len(found.labels)} classes")
        if found.passed_over:
            self.notify(found.passed_over.sentence())

    def on_progress(self, done: int, total: int, error: VideoError | None) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, total=total)
        if error is not None:
            self.notify(f"{error.code}: {error.message}")


def print_report(run: TaughtRun) -> None:
    """Print what teaching found and how to use it, on standard output."""
    report, console = run.report, table_console()

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    none = f" and {report.num_none} of none of these" if report.num_none else ""
    line(f"{report.num_examples - report.num_none} examples of {len(report.counts)} classes{none}")
    line(accuracy_in_words(report))
    heads = ", ".join(f"{name} {value:.1%}" for name, value in report.heads.items() if value is not None)
    line(f"Head: {report.head}" + (f" (mean class accuracy: {heads})" if heads else ""))
    line(f"Unknown: likeness below {report.threshold:.3f}, from {report.threshold_from}")
    if report.worst:
        table = Table(
            Column("example", overflow="fold"), "is", "looks like", "score", "own score", title_justify="left"
        )
        table.title = "Examples that look like another class, worst first"
        for one in report.worst:
            cells = (shown(one.path), ", ".join(one.labels), one.looks_like)
            table.add_row(*map(escape, cells), f"{one.score:.1%}", f"{one.own_score:.1%}")
        console.print(table)
    for path, problem in report.unreadable:
        line(f"not used: {shown(path)}: {problem}")
    for note in report.notes:
        line(note)
    typer.echo(f"Written to {run.path}: best.safetensors, report.json, README.md and more.")
    asked = "" if run.region is None else f" --region {run.region}"
    typer.echo(f"Try it: nonlocal-video classify CLIP --model {run.path}{asked}")
