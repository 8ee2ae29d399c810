"""`nonlocal-video evaluate`: accuracy of a model on labelled clips, with its uncertainty."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.evaluate_segments import refuse_clip_options, run_segments
from nonlocal_video.cli.interrupt import GracefulInterrupt
from nonlocal_video.cli.terminal import STATUS_FAILED, STATUS_INTERRUPTED, naming_resume, table_console
from nonlocal_video.errors import UsageError


class EvaluationContext(StrEnum):
    """Context that an answer draws on."""

    none = "none"
    folder = "folder"
    nonlocal_ = "nonlocal"


class Protocol(StrEnum):
    """Evaluation protocols."""

    published = "published"


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|CSV", help="Folder with one subfolder of clips per class, or a CSV path,label[,group][,split]."
        ),
    ],
    model: options.Model = "default",
    device: options.Devices = "auto",
    runtime: options.Runtime = options.RuntimeChoice.auto,
    precision: options.Precision = options.PrecisionChoice.float32,
    views: Annotated[
        str | None, typer.Option(help="Views whose scores are averaged, CLIPSxCROPS (default: 1x1).")
    ] = None,
    fast: options.Fast = False,
    region: options.Region = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="published: use the views of the published accuracy in the model card, and show it for comparison."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split to evaluate, as named in the CSV or by the folders above the classes (default: all)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for summary, predictions and confusion matrix (default: only print the results)."),
    ] = None,
    all_files: options.AllFiles = False,
    ignore_column: options.IgnoreColumn = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    no_csv_escape: options.NoCsvEscape = False,
    workers: options.Workers = None,
    batch_size: options.BatchSize = None,
    decoder: options.Decoder = options.DecoderChoice.auto,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on standard output.")] = False,
    segments: Annotated[
        bool,
        typer.Option(
            "--segments",
            help="Measure what happens when: the CSV is path,start_seconds,end_seconds,label[,group,split].",
        ),
    ] = False,
    background: Annotated[
        list[str] | None, typer.Option(help="With --segments: a label that is no action; may be repeated.")
    ] = None,
    context: Annotated[
        EvaluationContext | None,
        typer.Option(
            help="folder: clips draw on each other, as in `classify`; with --segments nonlocal or none.",
            show_default="none; with --segments nonlocal",
        ),
    ] = None,
    stride_seconds: Annotated[float | None, typer.Option(help="With --segments: as in `timeline`.")] = None,
    shortest_seconds: Annotated[float, typer.Option(help="With --segments: as in `timeline`.")] = 0.0,
    threshold: Annotated[float, typer.Option(help="With --segments: as in `timeline`.")] = 0.0,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Measure a model on labelled clips; those that cannot be read are counted, too."""
    allowed = (EvaluationContext.nonlocal_, EvaluationContext.none) if segments else (
        EvaluationContext.none, EvaluationContext.folder
    )  # fmt: skip
    context = context or allowed[0]
    if context not in allowed:
        kind = "segments" if segments else "clips, without --segments,"
        raise UsageError(f"context = {context.value!r} of {kind} should be one of {', '.join(allowed)}.")
    if segments:
        refuse_clip_options({"--views": views, "--protocol": protocol, "--resume": resume, "--workers": workers})
        from nonlocal_video.video.region import Region

        run_segments(
            source,
            load={
                "model": model,
                "device": device,
                "runtime": runtime.value,
                "precision": precision.value,
                "decoder": decoder.value,
            },
            timeline={
                "fast": fast,
                "stride_seconds": stride_seconds,
                "batch_size": batch_size,
                "region": Region.parse(region),
                "context": context.value,
            },
            rule={"threshold": threshold, "min_seconds": 0.0, "shortest_seconds": shortest_seconds},
            background=background or (),
            split=split,
            ignore_columns=ignore_column or (),
            output=output,
            as_json=as_json,
        )
        return
    if background or stride_seconds or shortest_seconds or threshold:
        raise UsageError("--background, --stride-seconds, --shortest-seconds and --threshold only act with --segments.")

    from nonlocal_video.cli.evaluate_text import EvaluationProgress, print_evaluation
    from nonlocal_video.evaluation.api import evaluate as evaluate_model
    from nonlocal_video.evaluation.report import REPORT_FILES

    with naming_resume(keeps=output is not None), GracefulInterrupt() as stop, EvaluationProgress() as progress:
        try:
            evaluation = evaluate_model(
                source,
                model=model,
                device=device,
                runtime=runtime.value,
                precision=precision.value,
                views=views,
                fast=fast,
                region=region,
                protocol="published" if protocol else None,
                context="folder" if context is EvaluationContext.folder else "none",
                split=split,
                output=output,
                resume=resume,
                all_files=all_files,
                ignore_columns=ignore_column or (),
                csv_escape=not no_csv_escape,
                workers=workers,
                batch_size=batch_size,
                decoder=decoder.value,
                seed=seed,
                callback=progress,
                should_stop=lambda: stop.requested,
            )
        except KeyboardInterrupt:
            kept = f" {progress.added} answers were added to {str(output)!r}; the same command with --resume continues."
            typer.echo("Stopped." + (kept if output else ""), err=True)
            raise typer.Exit(STATUS_INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(evaluation.summary()))
    else:
        print_evaluation(evaluation, table_console())
        if output is not None:
            written = REPORT_FILES if evaluation.metrics else REPORT_FILES[:2]
            typer.echo(f"Written to {output}: {', '.join(written)}.")
    if evaluation.unreadable:
        raise typer.Exit(STATUS_FAILED)
