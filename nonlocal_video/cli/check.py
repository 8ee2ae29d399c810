"""`nonlocal-video check`: check labelled clips and write the manifest for training."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.outputs import check_new_file
from nonlocal_video.cli.run_progress import RunProgressBar
from nonlocal_video.cli.terminal import STATUS_FAILED, STATUS_INTERRUPTED, table_console
from nonlocal_video.cli.text import shown
from nonlocal_video.errors import UsageError

if TYPE_CHECKING:
    from nonlocal_video.datasets.check import CheckedClip
    from nonlocal_video.datasets.labelled_clip import LabelledClip, LabelledSource
    from nonlocal_video.datasets.splits import SplitPlan
    from nonlocal_video.video.decode import VideoReader

_DEFAULT_SHARE = 0.2


def check(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|CSV", help="Folder with one subfolder of clips per class, or a CSV path,label[,group][,split]."
        ),
    ],
    model: options.Model = "default",
    output: Annotated[
        Path | None,
        typer.Option(help="Manifest to write for training, .csv or .jsonl (default: only print the findings)."),
    ] = None,
    validation_share: Annotated[
        float | None,
        typer.Option(help="Fraction of clips held out for validation, of clips without a split (default: 0.2)."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Number of cross-validation folds for clips without a split.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split.")] = 0,
    region: options.Region = None,
    every_frame: Annotated[
        bool, typer.Option("--every-frame", help="Decode every frame of each clip instead of a few.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Number of decoding processes.")] = 1,
    all_files: options.AllFiles = False,
    ignore_column: options.IgnoreColumn = None,
    decoder: options.Decoder = options.DecoderChoice.auto,
    limit: options.Limit = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Check labelled clips for training: find unusable, short and duplicate clips, and hold out validation clips."""
    from nonlocal_video.datasets.labelled import read_source
    from nonlocal_video.datasets.manifest import check_format, write_manifest
    from nonlocal_video.datasets.report import make_report
    from nonlocal_video.datasets.splits import SplitPlan
    from nonlocal_video.video.decode import VideoReader
    from nonlocal_video.video.limits import DecodeLimits
    from nonlocal_video.video.region import Region
    from nonlocal_video.zoo.catalogue import card_of

    if output is not None:
        check_format(output)
        if output.exists() and os.path.samefile(output, source):
            raise UsageError(f"output = {str(output)!r} is the list of clips itself; give another file.")
        check_new_file(output)
    split_requested = validation_share is not None or folds is not None
    plan = SplitPlan(validation_share if split_requested else _DEFAULT_SHARE, folds, seed)
    limits = DecodeLimits.parse(limit or ())
    part = Region.parse(region)
    spec = card_of(model).input
    found = read_source(source, all_files=all_files, ignore_columns=ignore_column or ()).to_divide()
    clips = found.clips
    print_source(found)
    if split_requested and all(clip.split for clip in clips):
        raise UsageError("Every clip has a split already; omit --validation-share and --folds.")

    started = time.perf_counter()
    readers = [VideoReader(decoder=decoder.value, limits=limits) for _ in range(min(workers, len(clips)))]
    checked = check_with_progress(clips, readers, every_frame=every_frame)
    report = make_report(checked, spec, plan, region=part)
    check_notes = report.notes
    report = replace(report, notes=(*found.notes, *check_notes), passed_over=found.passed_over.counts)
    if output is not None:
        write_manifest(output, report.manifest)
    seconds = time.perf_counter() - started
    if as_json:
        about = {"source": source, "model": model, "every_frame": every_frame, "seed": seed}
        about |= {} if part is None else {"region": str(part)}
        typer.echo(json.dumps({**about, **report.summary(), "check_seconds": round(seconds, 3)}))
    else:
        from nonlocal_video.cli.check_text import print_report

        print_report(replace(report, notes=check_notes), spec, table_console(), every_frame=every_frame)
        if report.undivided is None:
            _print_split_notes(found, plan)
        typer.echo(f"Checked in {seconds:.1f} s." + (f" Written to {output}." if output is not None else ""))
    if not report.all_well or (split_requested and report.undivided):
        raise typer.Exit(STATUS_FAILED)


def check_with_progress(
    clips: Sequence[LabelledClip], readers: list[VideoReader], *, every_frame: bool
) -> list[CheckedClip]:
    """Check clips by `check_clips` with a progress bar; Ctrl-C ends the command."""
    from nonlocal_video.datasets.check import check_clips

    found: list[CheckedClip] = []
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        outcomes = stack.enter_context(closing(check_clips(clips, readers, every_frame=every_frame)))
        progress = stack.enter_context(RunProgressBar(lambda: len(clips)))
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
    """Print the notes on a source, and the counts of skipped files, on standard error."""
    for line in (*found.notes, found.passed_over.sentence()):
        if line:
            typer.echo(shown(line), err=True)


def _print_split_notes(found: LabelledSource, plan: SplitPlan) -> None:
    given = sum(clip.split is not None for clip in found.clips)
    if given:
        typer.echo(
            f"{given} clips have a split in the {'folders' if found.splits_of_folders else 'list of clips'}; "
            "it is kept."
        )
    if given < len(found.clips):
        what = f"{plan.folds} folds" if plan.folds else f"{plan.validation_share:.0%} for validation"
        typer.echo(f"Split with seed {plan.seed}: {what}; clips that share a group or a content stay together.")
