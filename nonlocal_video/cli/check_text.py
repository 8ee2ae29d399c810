"""The findings of `check` as text on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nonlocal_video.cli.text import shown
from nonlocal_video.datasets.check import NUM_THUMBNAILS
from nonlocal_video.datasets.report import CheckReport, SameContent
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.sampling import FILLED

_SHOWN = 10
"""Number of findings of each kind that are shown; --json and the manifest contain all."""


def print_report(report: CheckReport, spec: InputSpec, console: Console, *, every_frame: bool) -> None:
    """Print the classes, unusable and duplicate clips, and notes."""
    summary = report.summary()
    what = "every frame" if every_frame else f"up to {NUM_THUMBNAILS} frames of each, including the first and the last"
    console.print(
        f"{summary['clips']} clips, {summary['usable']} usable ({summary['seconds']:.0f} s); decoded: {what} "
        f"({summary['frames_decoded']} in total)",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_classes(report))
    _print_lines(console, [report.balance()])
    _print_lines(console, (f"unusable: {shown(row.path)}: {row.problem}" for row in report.unusable))
    _print_lines(console, (_duplicate(same) for same in report.same if not same.contradictory))
    _print_lines(
        console,
        (
            f"group {group!r} is in {' and '.join(splits)}: results there are not independent of training"
            for group, splits in report.split_groups
        ),
    )
    _print_lines(console, (f"note: {shown(path)}: {note}" for path, note in report.file_notes))
    view = f"{spec.num_frames} frames, {spec.span_seconds:.2f} s"
    filled = FILLED[spec.short_clips]
    _print_lines(console, _some(report.short, f"shorter than the model's view ({view}) and {filled} in training"))
    _print_lines(
        console, _some(report.small, f"smaller than the model's view ({spec.crop} pixels) and enlarged in training")
    )
    _print_lines(console, report.notes)
    if report.undivided:
        _print_lines(console, [f"not split: {report.undivided}"])


def _classes(report: CheckReport) -> Table:
    splits = report.manifest.splits
    table = Table("class", *("clips", "groups", "seconds", "unusable"), *splits)
    for row in report.per_class():
        counts = [row["clips"], row["groups"], f"{row['seconds']:.0f}", row["unusable"], *row["splits"].values()]
        table.add_row(escape(row["label"]), *map(str, counts))
    return table


def _duplicate(same: SameContent) -> str:
    text = f"same {same.by}: {', '.join(map(shown, same.paths))}"
    if same.leaks:
        return f"{text}; in {' and '.join(same.given_splits)}: keep them in one split, or delete all but one"
    if len(same.groups) > 1:
        return f"{text}; in the groups {' and '.join(same.groups)}, which therefore stay together"
    return f"{text}; each is used in training: delete all but one if that is not intended"


def _some(paths: tuple[str, ...], what: str) -> list[str]:
    if not paths:
        return []
    named = ", ".join(map(shown, paths[:_SHOWN]))
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return [f"{len(paths)} clip{'s are' if len(paths) > 1 else ' is'} {what}: {named}{more}"]


def _print_lines(console: Console, lines: Iterable[str]) -> None:
    every = list(lines)
    for line in every[:_SHOWN]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(every) > _SHOWN:
        console.print(f"and {len(every) - _SHOWN} more like this", highlight=False)
