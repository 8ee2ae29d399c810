"""The results of `evaluate` as text on the terminal."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from types import TracebackType

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from nonlocal_video.cli.check import print_source
from nonlocal_video.cli.run_progress import RunProgressBar
from nonlocal_video.datasets.labelled_clip import LabelledSource
from nonlocal_video.evaluation.api import EvaluationCallback
from nonlocal_video.evaluation.report import Evaluation, percent

_SHOWN = 10
"""Number of mistakes and unreadable clips that are shown; the files of --output contain all."""


class EvaluationProgress(EvaluationCallback):
    """A bar on standard error while clips are answered; a context manager.

    Attributes:
        added: Answers that this run has added.
    """

    def __init__(self) -> None:
        self.added = 0
        self._stack = ExitStack()
        self._bar: RunProgressBar | None = None

    def __enter__(self) -> EvaluationProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def on_source(self, found: LabelledSource) -> None:
        print_source(found)

    def on_progress(self, counts: Counter[str], done_before: int, total: int) -> None:
        if self._bar is None:
            self._bar = self._stack.enter_context(RunProgressBar(lambda: total))
        self.added = counts.total()
        self._bar.update(counts, done_before)

    def notify(self, sentence: str) -> None:
        typer.echo(sentence, err=True)


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print the metrics, the worst mistakes, unreadable clips and notes."""
    summary, metrics = evaluation.summary(), evaluation.metrics
    _print_line(
        console,
        f"{summary['model']}, {summary['views']} views{', fast' if summary['fast'] else ''}: "
        f"{summary['clips']} clips, {summary['classes']} of {summary['classes_of_model']} classes, "
        f"{evaluation.unreadable_in_words() or 'all readable'}, {summary['groups']} groups",
    )
    if metrics is None:
        _print_line(console, "No clip of a class can be read, so there are no metrics.")
    else:
        console.print(_metrics_table(evaluation))
        _print_line(
            console,
            f"Calibration: expected error {percent(metrics.calibration_error):.1f} points; mean confidence "
            f"{percent(metrics.mean_confidence):.1f}%",
        )
    for sentence in evaluation.unknown.sentences() if evaluation.unknown else ():
        _print_line(console, sentence)
    mistakes = [answer for answer in evaluation.worst_first if answer.readable and not answer.right]
    if mistakes:
        clip = Column("clip", overflow="fold")
        table = Table(clip, "is", "answer", "score", "score of the true class", "its rank", title_justify="left")
        table.title = f"Mistakes, worst first ({min(_SHOWN, len(mistakes))} of {len(mistakes)})"
        for answer in mistakes[:_SHOWN]:
            table.add_row(
                *map(escape, (answer.path, answer.truth.label, answer.top[0].label)),
                f"{answer.top[0].score:.1%}",
                "-" if answer.true_score is None else f"{answer.true_score:.1%}",
                "-" if answer.true_rank is None else str(answer.true_rank),
            )
        console.print(table)
    for answer in evaluation.unreadable[:_SHOWN]:
        if answer.error:
            _print_line(console, f"unreadable: {answer.path}: {answer.error[0]}: {answer.error[1]}")
    if len(evaluation.unreadable) > _SHOWN:
        _print_line(console, f"and {len(evaluation.unreadable) - _SHOWN} more unreadable")
    for note in evaluation.notes:
        _print_line(console, note)


def _metrics_table(evaluation: Evaluation) -> Table:
    names = {"top1": "top-1", "mean_class": "mean class"}
    summary = evaluation.summary()
    columns = ["%", "measured", "95% interval"]
    columns += ["unreadable as wrong"] if evaluation.unreadable else []
    columns += [f"published ({evaluation.published.views})"] if evaluation.published else []
    table = Table(*columns)
    for name, row in summary["accuracy_percent"].items():
        cells = [names.get(name, name.replace("top", "top-")), f"{row['value']:.1f}"]
        cells.append("{:.1f} to {:.1f}".format(*row["interval_95"]) if row["interval_95"] else "-")
        cells += [f"{row['unreadable_as_wrong']:.1f}"] if evaluation.unreadable else []
        quoted = getattr(evaluation.published, name, None)
        cells += ["-" if quoted is None else f"{quoted:.1f}"] if evaluation.published else []
        table.add_row(*cells)
    return table


def _print_line(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
