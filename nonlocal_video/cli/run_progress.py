"""Progress bar of a folder run on standard error, if that is a terminal, and the rows above it."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType

import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nonlocal_video.cli.terminal import progress_bar


class RunProgressBar:
    """Progress bar with files done, files per second, errors, elapsed and remaining time. A context manager."""

    def __init__(self, count: Callable[[], int]) -> None:
        """Make the bar.

        Args:
            count: Counts all files of the run; called in another thread, so that the first row does not wait for it.
        """
        self._progress = progress_bar(
            BarColumn(),
            TextColumn(
                "{task.completed} of {task.fields[of]} files, {task.fields[rate]}, {task.fields[errors]} errors"
            ),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            redirect_stdout=False,  # it would send rows to standard error
        )
        on_terminal = self._progress.console.is_terminal
        self._rows_beside_bar = on_terminal and _on_one_terminal()
        self._task = self._progress.add_task("", total=None, of="?", rate="-", errors=0)
        if on_terminal:
            threading.Thread(target=self._count, args=(count,), daemon=True).start()

    def __enter__(self) -> RunProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def row(self, text: str) -> None:
        """Print a row on standard output, above the bar if both are on the same terminal."""
        if self._rows_beside_bar:
            self._progress.console.out(text, highlight=False)
        else:
            typer.echo(text)

    def update(self, counts: Counter[str], done_before: int) -> None:
        """Update the bar after a row.

        Args:
            counts: Counts of `ok` and of error codes in this run.
            done_before: Number of files done in earlier runs.
        """
        done = counts.total()
        elapsed = self._progress.tasks[0].elapsed
        self._progress.update(
            self._task,
            completed=done + done_before,
            errors=done - counts["ok"],
            rate=f"{done / elapsed:.2f}/s" if elapsed else "-",
        )

    def _count(self, count: Callable[[], int]) -> None:
        total = count()
        self._progress.update(self._task, total=total, of=total)


def _on_one_terminal() -> bool:
    """Return whether standard output and standard error are the same terminal."""
    try:
        out, err = (os.fstat(stream.fileno()) for stream in (sys.stdout, sys.stderr))
        return sys.stdout.isatty() and os.path.samestat(out, err)
    except (OSError, ValueError):  # not files: a program has replaced them
        return False
