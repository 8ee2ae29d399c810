"""`nonlocal-video timeline`: recognise what happens when in a long video."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nonlocal_video.cli import options
from nonlocal_video.cli.interrupt import GracefulInterrupt
from nonlocal_video.cli.outputs import check_new_file
from nonlocal_video.cli.terminal import STATUS_FAILED, STATUS_INTERRUPTED, progress_bar
from nonlocal_video.cli.text import shown
from nonlocal_video.errors import OutputError

if TYPE_CHECKING:
    from nonlocal_video.inference.recognizer import Recognizer
    from nonlocal_video.inference.timeline import Timeline


class ContextChoice(StrEnum):
    """Context that a window's answer draws on."""

    nonlocal_ = "nonlocal"
    none = "none"


def timeline(
    video: Annotated[str, typer.Argument(help="Video file of any length.")],
    output: Annotated[
        list[Path] | None,
        typer.Option(
            help="File to write: .json, .csv (windows), .segments.csv (segments), .vtt or .srt (subtitles), .png "
            "(picture); for annotation tools .eaf, .boris, .labelstudio.json or .activitynet.json; may be repeated."
        ),
    ] = None,
    window_seconds: options.WindowSeconds = None,
    stride_seconds: Annotated[
        float | None, typer.Option(help="Seconds from one window to the next (default: half a window).")
    ] = None,
    context: Annotated[
        ContextChoice,
        typer.Option(help="nonlocal: each window's answer draws on the windows like it; none: on itself alone."),
    ] = ContextChoice.nonlocal_,
    shortest_seconds: Annotated[
        float, typer.Option(help="Length of the shortest action: the best segments that are no shorter.")
    ] = 0.0,
    threshold: Annotated[float, typer.Option(help="Score, 0 to 1, below which a segment has no class.")] = 0.0,
    min_seconds: Annotated[
        float,
        typer.Option(help="Minimum length of a segment in seconds; shorter ones are merged into their neighbours."),
    ] = 0.0,
    model: options.Model = "default",
    device: options.Device = "auto",
    runtime: options.Runtime = options.RuntimeChoice.auto,
    precision: options.Precision = options.PrecisionChoice.float32,
    fast: options.Fast = False,
    start_seconds: options.StartSeconds = None,
    end_seconds: options.EndSeconds = None,
    region: options.Region = None,
    top_k: options.TopK = 5,
    no_csv_escape: options.NoCsvEscape = False,
    batch_size: options.BatchSize = None,
    decoder: options.Decoder = options.DecoderChoice.auto,
    clips_dir: Annotated[
        Path | None, typer.Option(help="Folder to cut the segments to, each as an MP4 without sound.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole as one JSON object on standard output.")] = False,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Recognise what happens when: classify a sliding window and merge its answers into segments."""
    from nonlocal_video.inference.load import load
    from nonlocal_video.inference.segment_files import cut_segments
    from nonlocal_video.inference.timeline import check_segment_rule
    from nonlocal_video.inference.timeline_files import check_output, to_json, write_timeline
    from nonlocal_video.video.region import Region

    outputs = [check_output(path) for path in output or ()]
    for path in outputs:
        check_new_file(path)
    rule = {"threshold": threshold, "min_seconds": min_seconds, "shortest_seconds": shortest_seconds}
    check_segment_rule(**rule)
    settings: dict[str, Any] = {
        "window_seconds": window_seconds,
        "stride_seconds": stride_seconds,
        "fast": fast,
        "start_seconds": start_seconds,
        "end_seconds": end_seconds,
        "batch_size": batch_size,
        "region": Region.parse(region),
        "context": context.value,
    }
    with load(
        model, device=device, runtime=runtime.value, precision=precision.value, decoder=decoder.value
    ) as recognizer:
        result = _follow(recognizer, video, settings)
        clips: list[Path] = []
        if result is not None and clips_dir is not None:
            with recognizer.new_reader() as reader:
                clips = cut_segments(reader, video, result.segments(**rule), clips_dir)
    if result is None:
        typer.echo("Stopped before the first window was done; nothing was written.", err=True)
        raise typer.Exit(STATUS_INTERRUPTED)

    written: list[Path] = []
    unwritten: list[OutputError] = []
    for path in outputs:  # before printing, as the reader of a pipe may be gone
        try:
            written.append(
                write_timeline(
                    path,
                    result,
                    top_k=top_k,
                    csv_escape=not no_csv_escape,
                    notify=lambda sentence: typer.echo(sentence, err=True),
                    **rule,
                )
            )
        except OutputError as error:  # the others are written all the same
            unwritten.append(error)
    if as_json:
        typer.echo(json.dumps(to_json(result, top_k=top_k, **rule)))
    else:
        typer.echo("\n".join(_lines(result, rule)))
    for path in [*written, *clips]:
        typer.echo(path, err=as_json)
    if not result.is_complete:
        kept = f"{len(result)} of {result.num_planned} windows, up to {result.ends[-1]:.2f} s, were kept."
        why = f"{result.error.code}: {result.error.message}\n" if result.error else "Stopped. "
        typer.echo(why + kept, err=True)
    for failure in unwritten[:-1]:
        typer.echo(str(failure), err=True)
    if unwritten:
        raise unwritten[-1]
    if result.error:
        raise typer.Exit(STATUS_FAILED)
    if not result.is_complete:
        raise typer.Exit(STATUS_INTERRUPTED)


def _follow(recognizer: Recognizer, video: str, settings: dict[str, Any]) -> Timeline | None:
    """Return the timeline up to the end, to where the video is damaged, or to Ctrl-C."""
    from nonlocal_video.inference.sliding import slide

    result: Timeline | None = None
    with GracefulInterrupt() as stop, _Progress() as progress, closing(slide(recognizer, video, **settings)) as steps:
        try:
            for result in steps:
                progress.update(result)
                if stop.requested:
                    break
        except KeyboardInterrupt:  # the second one
            pass
    if result is not None and not result.is_complete and result.error is None:
        return result.in_context(result.context)  # each window so far drew on those before it alone
    return result


def _lines(result: Timeline, rule: dict[str, float]) -> Iterator[str]:
    from nonlocal_video.inference.timeline_files import clock

    yield shown(result.path)
    for segment in result.segments(**rule):
        span = f"{clock(segment.start_seconds)} - {clock(segment.end_seconds)}"
        label = segment.label or f"(nothing reaches {rule['threshold']:.0%})"
        yield f"  {span}  {segment.score:6.1%}  {label}"
    yield f"  {result.summary}"
    yield from (f"  {note}" for note in result.notes)


class _Progress:
    """Progress bar on standard error, if that is a terminal: windows done, position and action."""

    def __init__(self) -> None:
        self._progress = progress_bar(
            BarColumn(),
            TextColumn("{task.completed} of {task.total} windows, {task.description}"),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task("reading", total=None)

    def __enter__(self) -> _Progress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, result: Timeline) -> None:
        """Update the bar after a window."""
        best = result.top(len(result) - 1, 1)[0]
        self._progress.update(
            self._task,
            total=result.num_planned,
            completed=len(result),
            description=escape(f"{result.ends[-1]:.0f} s: {best.label} {best.score:.0%}"),
        )
