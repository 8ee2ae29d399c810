"""`nonlocal-video evaluate --segments`: what happens when, measured against a table of segments."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nonlocal_video.cli.run_progress import RunProgressBar
from nonlocal_video.cli.terminal import STATUS_FAILED
from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.io import check_new

if TYPE_CHECKING:
    from nonlocal_video.evaluation.segment_run import SegmentEvaluation

SUMMARY, FOUND = "summary.json", "found.segments.csv"


def run_segments(
    source: str,
    *,
    load: dict[str, Any],
    timeline: dict[str, Any],
    rule: dict[str, float],
    background: Sequence[str],
    split: str | None,
    ignore_columns: Sequence[str],
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure, write and print.

    Args:
        source: The table of segments.
        load: Arguments of `recognizer.load`.
        timeline: Arguments of `Recognizer.timeline`.
        rule: Arguments of `Timeline.segments`.
        background: Labels that are not actions.
        split: Only its videos.
        ignore_columns: Columns for other programs.
        output: Folder for the summary and what was found.
        as_json: Print the summary as JSON.
    """
    from nonlocal_video.datasets.segment_table import read_segments
    from nonlocal_video.evaluation.segment_run import evaluate_segments
    from nonlocal_video.inference.load import load as load_recognizer
    from nonlocal_video.inference.timeline import check_segment_rule

    check_segment_rule(**rule)
    table = read_segments(source, split=split, ignore_columns=ignore_columns)
    if output is not None:
        for name in (SUMMARY, FOUND):
            check_new(output / name)
    with load_recognizer(**load) as recognizer, RunProgressBar(lambda: len(table.videos)) as progress:
        evaluation = evaluate_segments(
            recognizer,
            table,
            timeline=timeline,
            rule=rule,
            background=background,
            on_video=lambda done: progress.update(Counter({"ok": done}), 0),
        )
    summary = {"source": source, "split": split, **evaluation.summary()}
    if output is not None:
        _write(output, summary, evaluation)
    for note in evaluation.notes:
        typer.echo(note, err=True)
    for path, error in evaluation.unreadable:
        typer.echo(f"{path}: {error.code}: {error.message}", err=True)
    typer.echo(json.dumps(summary) if as_json else "\n".join(_lines(evaluation)))
    if evaluation.unreadable:
        raise typer.Exit(STATUS_FAILED)


def _lines(evaluation: SegmentEvaluation) -> list[str]:
    scores = evaluation.scores
    named = ", ".join(map(repr, scores.background)) or "none named"
    rate = evaluation.settings["frames_per_second"]
    maps = [f"{name.removeprefix('map@')}: {_shown(value)}" for name, value in scores.mean_average_precision.items()]
    return [
        f"{len(evaluation.videos)} videos, {scores.num_true_segments} true segments, {scores.num_found_segments} found",
        f"  Background      {named}; time without a segment is background, too",
        f"  Frame accuracy  {_shown(scores.frame_accuracy)} of {scores.num_frames} times, {rate:g} a second",
        f"  Class mean      {_shown(scores.class_mean)}",
        f"  Edit score      {_shown(scores.edit)}",
        "  F1@10, 25, 50   " + ", ".join(_shown(value) for value in scores.f1.values()),
        f"  mAP             {_shown(scores.mean_average_precision['map'])} ({', '.join(maps[:-1])})",
    ]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _write(output: Path, summary: dict[str, Any], evaluation: SegmentEvaluation) -> None:
    from nonlocal_video.evaluation.segment_run import found_rows
    from nonlocal_video.inference.csv_cells import write_rows
    from nonlocal_video.inference.segment_files import SEGMENT_COLUMNS
    from nonlocal_video.io import atomic_write

    text = io.StringIO()
    write_rows(text, list(SEGMENT_COLUMNS), found_rows(evaluation, output), escape=False, lineterminator="\n")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in ((SUMMARY, json.dumps(summary, indent=1) + "\n"), (FOUND, text.getvalue())):
            with atomic_write(output / name) as file:
                file.write(content.encode())
    except OSError as error:
        raise OutputError(f"output = {str(output)!r} cannot be written: {error.strerror}. Choose another.") from error


def refuse_clip_options(given: dict[str, object]) -> None:
    """Refuse options that only act on clips.

    Raises:
        UsageError: One is given beside `--segments`.
    """
    names = [name for name, value in given.items() if value]
    if names:
        raise UsageError(f"{', '.join(names)} only acts on clips; leave it out with --segments.")
