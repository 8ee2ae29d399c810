"""`nonlocal-video watch`: recognise what a camera sees, continuously."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.interrupt import GracefulInterrupt
from nonlocal_video.cli.terminal import STATUS_INTERRUPTED
from nonlocal_video.cli.timeline import ContextChoice


def watch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="0|DEVICE|FILE",
            help="Camera, by number (0 is /dev/video0) or device; or a video file or address. A file named 0 is ./0.",
        ),
    ],
    every_seconds: Annotated[
        float, typer.Option(help="Seconds from one answer to the next; later if the machine takes longer.")
    ] = 0.5,
    window_seconds: options.WindowSeconds = None,
    context: Annotated[
        ContextChoice,
        typer.Option(help="nonlocal: an answer draws on those of the last minute like it; none: on its window alone."),
    ] = ContextChoice.nonlocal_,
    context_seconds: Annotated[float, typer.Option(help="How far back the context reaches, in seconds.")] = 60.0,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime", help="Read a file no faster than it plays, as a camera would; leave out what is late."
        ),
    ] = False,
    on: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL>=SCORE", help="An event begins when this class reaches this score; repeatable."),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            help="Program run once an event, by no shell; it gets the event as JSON on standard input, and "
            "NONLOCAL_VIDEO_EVENT, _SCORE, _SOURCE, _START_SECONDS, _END_SECONDS and _TIME."
        ),
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="Address to which each event is posted as JSON.")] = None,
    gap_seconds: Annotated[
        float, typer.Option(help="Least seconds between the beginnings of two events of a rule.")
    ] = 2.0,
    model: options.Model = "default",
    device: options.Device = "auto",
    runtime: options.Runtime = options.RuntimeChoice.torch,
    precision: options.Precision = options.PrecisionChoice.float32,
    fast: options.Fast = False,
    start_seconds: options.StartSeconds = None,
    end_seconds: options.EndSeconds = None,
    region: options.Region = None,
    top_k: options.TopK = 5,
    decoder: options.Decoder = options.DecoderChoice.auto,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Recognise what a camera sees, continuously: a JSON line an answer, and an action once an event."""
    from nonlocal_video.errors import UsageError
    from nonlocal_video.inference.live_events import EventActions, EventDetector, EventRule, event_row
    from nonlocal_video.inference.load import load
    from nonlocal_video.video.live import check_camera, is_camera
    from nonlocal_video.video.region import Region

    def warn(sentence: str) -> None:
        typer.echo(sentence, err=True)

    actions = EventActions(command, webhook, warn=warn)
    if (command or webhook) and not on:
        raise UsageError("--command and --webhook are for events; say what one is with --on 'LABEL>=SCORE'.")
    if is_camera(source):
        check_camera(source)
    with (
        GracefulInterrupt() as stop,
        load(
            model, device=device, runtime=runtime.value, precision=precision.value, decoder=decoder.value
        ) as recognizer,
        actions,
    ):
        detector = EventDetector(
            [EventRule.parse(rule, recognizer.labels) for rule in on or ()], gap_seconds=gap_seconds
        )
        answers = recognizer.watch(
            source,
            every_seconds=every_seconds,
            window_seconds=window_seconds,
            context=context.value,
            context_seconds=context_seconds,
            realtime=realtime,
            should_stop=lambda: stop.requested,
            fast=fast,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            region=Region.parse(region),
        )
        with closing(answers):
            try:
                for answer in answers:
                    begun = detector.begun(answer)
                    row = answer.to_row(top_k)
                    typer.echo(json.dumps(row | {"events": [rule.label for rule in begun]} if on else row))
                    for rule in begun:
                        actions.do(event_row(rule, answer, source, top_k))
            except KeyboardInterrupt:  # the second one
                pass
    if stop.requested:
        raise typer.Exit(STATUS_INTERRUPTED)
