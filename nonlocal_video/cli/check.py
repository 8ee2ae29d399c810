"""`nonlocal-video check`: labelled clips in, the manifest that training uses out, with all that is wrong named."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.outputs import check_place
from nonlocal_video.cli.run_progress import RunProgress
from nonlocal_video.cli.text import shown
from nonlocal_video.errors import UsageError

if TYPE_CHECKING:
    from nonlocal_video.datasets.check import CheckedClip
    from nonlocal_video.datasets.labelled_clip import LabelledClip, LabelledSource
    from nonlocal_video.datasets.splits import SplitPlan
    from nonlocal_video.video.decode import VideoReader

STATUS_SOME_UNUSABLE = 1
STATUS_INTERRUPTED = 130
_DEFAULT_SHARE = 0.2


def check(
    source: Annotated[
        str, typer.Argument(metavar="DIR|CSV", help="One folder of clips a class, or a CSV path,label[,group][,split].")
    ],
    model: options.Model = "default",
    output: Annotated[
        Path | None, typer.Option(help="Manifest to write for training, .csv or .jsonl; else only printed.")
    ] = None,
    validation_share: Annotated[
        float | None, typer.Option(help="Of the clips to measure on, for clips without a split; 0.2 if not given.")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Divide clips without a split into so many folds instead.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the division.")] = 0,
    every_frame: Annotated[
        bool, typer.Option("--every-frame", help="Decode every clip as a whole, not a few frames of it.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Decoding processes.")] = 1,
    all_files: options.AllFiles = False,
    ignore_column: options.IgnoreColumn = None,
    decoder: options.Decoder = options.DecoderChoice.auto,
    limit: Annotated[
        list[str] | None, typer.Option(help="What a file may cost, like max_duration_seconds=600; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON on standard output.")] = False,
) -> None:
    """Read every labelled clip as training would: unusable, short and duplicated clips, and the validation set."""
    from nonlocal_video.datasets.labelled import read_source
    from nonlocal_video.datasets.manifest import check_format, write_manifest
    from nonlocal_video.datasets.report import make_report
    from nonlocal_video.datasets.splits import SplitPlan
    from nonlocal_video.models.checkpoint import read_card
    from nonlocal_video.video.decode import VideoReader
    from nonlocal_video.video.limits import DecodeLimits
    from nonlocal_video.zoo.catalogue import find

    if output is not None:
        check_format(output)
        if output.exists() and os.path.samefile(output, source):
            raise UsageError(f"output = {str(output)!r} is the list of clips itself; name another file.")
        check_place(output)
    asked = validation_share is not None or folds is not None
    plan = SplitPlan(validation_share if asked else _DEFAULT_SHARE, folds, seed)
    limits = DecodeLimits.parse(limit or ())
    spec = read_card(find(model)).input
    found = read_source(source, all_files=all_files, ignore_columns=ignore_column or ()).to_divide()
    clips = found.clips
    print_source(found)
    if asked and all(clip.split for clip in clips):
        raise UsageError("Every clip has a split already, and it is kept; leave --validation-share and --folds away.")

    started = time.perf_counter()
    readers = [VideoReader(decoder=decoder.value, limits=limits) for _ in range(min(workers, len(clips)))]
    checked = check_with_progress(clips, readers, every_frame=every_frame)
    report = make_report(checked, spec, plan)
    said = report.notes
    report = replace(report, notes=(*found.notes, *said), passed_over=found.passed_over.counts)
    if output is not None:
        write_manifest(output, report.manifest)
    seconds = time.perf_counter() - started
    if as_json:
        about = {"source": source, "model": model, "every_frame": every_frame, "seed": seed}
        typer.echo(json.dumps({**about, **report.summary(), "check_seconds": round(seconds, 3)}))
    else:
        from rich.console import Console

        from nonlocal_video.cli.check_text import print_report

        print_report(
            replace(report, notes=said),
            spec,
            Console(width=None if sys.stdout.isatty() else 140),
            every_frame=every_frame,
        )
        if report.undivided is None:
            _say_splits(found, plan)
        typer.echo(f"Checked in {seconds:.1f} s." + (f" Written to {output}." if output is not None else ""))
    if not report.all_well or (asked and report.undivided):
        raise typer.Exit(STATUS_SOME_UNUSABLE)


def check_with_progress(
    clips: Sequence[LabelledClip], readers: list[VideoReader], *, every_frame: bool
) -> list[CheckedClip]:
    """Every clip as `check_clips` reads it; Ctrl-C ends the verb."""
    from nonlocal_video.datasets.check import check_clips

    found: list[CheckedClip] = []
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        outcomes = stack.enter_context(closing(check_clips(clips, readers, every_frame=every_frame)))
        progress = stack.enter_context(RunProgress(lambda: len(clips)))
        try:
            for one in outcomes:
                found.append(one)
                counts[one.error.code if one.error else "ok"] += 1
                progress.update(counts, 0)
        except KeyboardInterrupt:
            typer.echo("Stopped; nothing was written.", err=True)
            raise typer.Exit(STATUS_INTERRUPTED) from None
    return found


def print_source(found: LabelledSource) -> None:
    """Print what was found beside the clips, and what was passed over, on standard error."""
    for line in (*found.notes, found.passed_over.sentence()):
        if line:
            typer.echo(shown(line), err=True)


def _say_splits(found: LabelledSource, plan: SplitPlan) -> None:
    given = sum(clip.split is not None for clip in found.clips)
    if given:
        typer.echo(
            f"{given} clips have a split in the {'tree' if found.splits_of_folders else 'list'} of clips; it was kept."
        )
    if given < len(found.clips):
        what = f"{plan.folds} folds" if plan.folds else f"{plan.validation_share:.0%} to measure on"
        typer.echo(f"Divided with seed {plan.seed}: {what}; clips of one group or one content are never on two sides.")
