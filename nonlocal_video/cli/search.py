"""`nonlocal-video search`: find the moments that are most like a clip, or a moment of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.interrupt import STATUS_INTERRUPTED, GracefulInterrupt
from nonlocal_video.cli.run_progress import RunProgressBar
from nonlocal_video.cli.terminal import naming_resume
from nonlocal_video.cli.text import shown
from nonlocal_video.errors import OutputError

if TYPE_CHECKING:
    from nonlocal_video.retrieval.result import SearchResult

STATUS_SOME_CLIPS_NOT_CUT = 1


def search(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TABLE|FOLDER",
            help="Table of `features --output`; or a folder of videos, whose table is made or brought up to date.",
        ),
    ],
    like: Annotated[
        list[str],
        typer.Option(
            help="Clip that the moments should be like; CLIP#t=START,END is a part of it; repeatable.", metavar="CLIP"
        ),
    ],
    at: Annotated[
        float | None,
        typer.Option(help="Middle of the moment that counts, in seconds as shown by a player."),
    ] = None,
    start_seconds: Annotated[
        float | None, typer.Option(help="Start of the part of the clip that counts (default: start of the clip).")
    ] = None,
    end_seconds: Annotated[
        float | None, typer.Option(help="End of the part of the clip that counts (default: end of the clip).")
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option(help="Clip that the moments should not be like, likewise; repeatable.", metavar="CLIP"),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of moments.")] = 20,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            help="File to write: .csv, .jsonl or .json, .png (a frame of each), .html (plays them); may be repeated."
        ),
    ] = None,
    clips_dir: Annotated[
        Path | None, typer.Option(help="Folder to cut the moments to, each as an MP4 without sound.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Table of a folder, .parquet (default: one in the cache folder).")
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Least score of a moment, -1 to 1.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only moments that the model takes for this class; repeatable.")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Only files that match this pattern, such as '*.mp4'; repeatable.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files that match this pattern; repeatable.")] = None,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine/--no-refine",
            help="Rank the best moments once more, each drawing on those like it by a non-local operation.",
        ),
    ] = False,
    model: options.Model = "default",
    device: options.Device = "auto",
    runtime: options.Runtime = options.RuntimeChoice.auto,
    precision: options.Precision = options.PrecisionChoice.float32,
    fast: options.Fast = False,
    stride_seconds: Annotated[
        float | None,
        typer.Option(help="Seconds from one window of a folder's table to the next (default: half a window)."),
    ] = None,
    region: options.Region = None,
    no_csv_escape: options.NoCsvEscape = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Query and moments as one JSON object on standard output.")
    ] = False,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Find the moments that are most like a clip, or a moment of it, in a table of features or a folder."""
    from nonlocal_video.retrieval.api import search as find
    from nonlocal_video.retrieval.result_files import check_output

    outputs = [check_output(path) for path in output or ()]
    arguments: dict[str, Any] = {
        "like": like,
        "at": at,
        "start_seconds": start_seconds,
        "end_seconds": end_seconds,
        "unlike": unlike or (),
        "top_k": top_k,
        "index": index,
        "refine": refine,
        "min_score": min_score,
        "labels": label or (),
        "include": include or (),
        "exclude": exclude or (),
        "model": model,
        "device": device,
        "runtime": runtime.value,
        "precision": precision.value,
        "fast": fast,
        "stride_seconds": stride_seconds,
        "region": region,
    }
    indexes = Path(source).is_dir()
    with (
        naming_resume(keeps=indexes, command="the same command"),
        GracefulInterrupt() as stop,
        ExitStack() as stack,
    ):
        bar = stack.enter_context(_bar(source)) if indexes else None
        try:
            result = find(source, **arguments, callback=None if bar is None else _callback(stop, bar))
        except KeyboardInterrupt:
            typer.echo("Stopped. The same command continues; what is done is kept.", err=True)
            raise typer.Exit(STATUS_INTERRUPTED) from None
    written, unwritten = _write(result, outputs, csv_escape=not no_csv_escape)
    not_cut: list[str] = []
    clips = (
        []
        if clips_dir is None
        else result.cut(
            clips_dir,
            on_failure=lambda hit, error: not_cut.append(f"{shown(hit.path)}: {error.code}: {error.message}"),
        )
    )
    if as_json:
        typer.echo(json.dumps(result.to_json()))
    else:
        typer.echo("\n".join(_lines(result)))
    for sentence in result.notes:
        typer.echo(sentence, err=True)
    for path in [*written, *clips]:
        typer.echo(path, err=as_json)
    for line in not_cut:
        typer.echo(line, err=True)
    for failure in unwritten[:-1]:
        typer.echo(str(failure), err=True)
    if unwritten:
        raise unwritten[-1]
    if not_cut:
        raise typer.Exit(STATUS_SOME_CLIPS_NOT_CUT)


def _write(result: SearchResult, outputs: list[Path], *, csv_escape: bool) -> tuple[list[Path], list[OutputError]]:
    """Write all outputs that can be written; return them, and the errors of the others."""
    written, unwritten = [], []
    for path in outputs:
        try:
            written.append(result.save(path, csv_escape=csv_escape))
        except OutputError as error:
            unwritten.append(error)
    return written, unwritten


def _lines(result: SearchResult) -> Iterator[str]:
    from nonlocal_video.inference.timeline_files import clock

    for path, start, end in result.examples:
        yield f"like {shown(path)}  {clock(start)} - {clock(end)}"
    for hit in result:
        span = f"{clock(hit.start_seconds)} - {clock(hit.end_seconds)}"
        yield f"  {hit.rank:3d}  {hit.score:6.3f}  {span}  {shown(hit.path)}"
    yield f"  {len(result)} moments of {result.query['num_windows']} windows in {result.query['num_files']} files"


def _bar(source: str) -> RunProgressBar:
    """Make the progress bar of a folder's table."""
    from nonlocal_video.inference.files import find_files

    return RunProgressBar(lambda: sum(1 for _ in find_files([source])))


def _callback(stop: GracefulInterrupt, bar: RunProgressBar) -> Any:
    """Return what tells of the work on a folder's table."""
    from nonlocal_video.retrieval.folder_index import IndexCallback

    class Callback(IndexCallback):
        def on_progress(self, progress: Any) -> None:
            bar.update(progress.counts, progress.done_before.total())

        def on_done(self, table: Path, run: Any) -> None:
            if run.counts or run.num_dropped:
                gone = f", {run.num_dropped} gone" if run.num_dropped else ""
                new = run.counts.total()
                typer.echo(f"{table}: {new} new or changed files, {run.done_before.total()} known{gone}", err=True)

        def should_stop(self) -> bool:
            return stop.requested

    return Callback()
