"""`nonlocal-video teach`: a model from a few examples, in one pass of the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.interrupt import STATUS_INTERRUPTED, GracefulInterrupt
from nonlocal_video.cli.terminal import naming_resume

STATUS_SOME_UNREADABLE = 1


def teach(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|CSV",
            help="Folder with one subfolder of examples per class, a CSV path,label[,group], or a CSV of segments "
            "path,start_seconds,end_seconds,label[,group].",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the run: weights, features, report, model card.")],
    model: options.Model = "default",
    views: Annotated[
        str, typer.Option(help="Views of each example, CLIPSx1, as those of the later `classify`; 1x1 is the middle.")
    ] = "1x1",
    fast: options.Fast = False,
    region: options.Region = None,
    device: options.Device = "auto",
    runtime: options.Runtime = options.RuntimeChoice.auto,
    decoder: options.Decoder = options.DecoderChoice.auto,
    workers: options.Workers = None,
    batch_size: options.BatchSize = None,
    all_files: options.AllFiles = False,
    ignore_column: options.IgnoreColumn = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Teach the run in --output again; only new examples are read."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON on standard output.")] = False,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Teach new classes by a few examples of each; nothing is trained, and the run is a model like any other."""
    from nonlocal_video.cli.teach_text import TeachProgress, print_report
    from nonlocal_video.teaching.api import teach as teach_model

    with naming_resume(keeps=True), GracefulInterrupt() as stop, TeachProgress() as progress:
        try:
            run = teach_model(
                source,
                output=output,
                model=model,
                views=views,
                fast=fast,
                region=region,
                device=device,
                runtime=runtime.value,
                decoder=decoder.value,
                workers=workers,
                batch_size=batch_size,
                all_files=all_files,
                ignore_columns=ignore_column or (),
                resume=resume,
                callback=progress,
                should_stop=lambda: stop.requested,
            )
        except KeyboardInterrupt:
            progress.notify(
                "Stopped. The same command with --resume continues with the examples that were not seen yet."
            )
            raise typer.Exit(STATUS_INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(run.report.to_json()))
    else:
        print_report(run)
    if run.report.unreadable:
        raise typer.Exit(STATUS_SOME_UNREADABLE)
