"""`nonlocal-video explain`: write the overlay video, its frames and the arrays behind them."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from nonlocal_video.cli import options
from nonlocal_video.cli.outputs import check_folder
from nonlocal_video.cli.terminal import progress_bar
from nonlocal_video.cli.text import describe
from nonlocal_video.errors import UsageError
from nonlocal_video.io import atomic_write

if TYPE_CHECKING:
    from nonlocal_video.attention.maps import AttentionMaps
    from nonlocal_video.inference.explanation import Explanation
    from nonlocal_video.inference.recognizer import Recognizer


class MethodChoice(StrEnum):
    """Kinds of maps."""

    attention = "attention"
    query = "query"
    evidence = "evidence"
    gradcam = "gradcam"


def explain(
    video: Annotated[str, typer.Argument(help="Video file.")],
    output: Annotated[Path, typer.Option(help="Folder for overlay.mp4, frames/ and attention.npz.")] = Path(
        "explained"
    ),
    method: Annotated[
        MethodChoice | None,
        typer.Option(
            help="Map: attention received, attention of a query point, or class evidence (also called gradcam)."
        ),
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="Query point SECONDS,X,Y: time, and fractions of the frame's width and height.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Class for the evidence map (default: the top class).")] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer of the map: a non-local block, or any layer for evidence.")
    ] = None,
    model: options.Model = "default",
    device: options.Device = "auto",
    runtime: options.Runtime = options.RuntimeChoice.auto,
    precision: options.Precision = options.PrecisionChoice.float32,
    fast: options.Fast = False,
    start_seconds: options.StartSeconds = None,
    end_seconds: options.EndSeconds = None,
    region: options.Region = None,
    top_k: options.TopK = 5,
    decoder: options.Decoder = options.DecoderChoice.auto,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check the map: blur its strongest cells, then others, and compare the scores; writes check.json.",
        ),
    ] = False,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Show where the network looked: overlay.mp4, frames/*.png and attention.npz."""
    point = None if query is None else _point(query)
    check_folder(output)

    from nonlocal_video.attention.maps import QueryPoint
    from nonlocal_video.inference.load import load
    from nonlocal_video.video.region import Region

    Region.parse(region)  # rejects an invalid region before a model is loaded

    query_point = None if point is None else QueryPoint(*point)
    with load(
        model, device=device, runtime=runtime.value, precision=precision.value, decoder=decoder.value
    ) as recognizer:
        explanation = recognizer.explain_all(
            video,
            fast=fast,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            around_seconds=None if query_point is None else query_point.seconds,
            region=region,
        )
        maps = explanation.maps(
            method=None if method is None else method.value, query=query_point, label=label, layer=layer
        )
        output.mkdir(parents=True, exist_ok=True)
        overlay = maps.save_overlay(output / "overlay.mp4")
        images = maps.save_frames(output / "frames")
        arrays = maps.save_arrays(output / "attention.npz")
        numbers = output / "check.json"
        numbers.unlink(missing_ok=True)  # the check of an earlier map does not apply
        checked = _check(recognizer, explanation, maps, label, numbers) if check else None
    typer.echo(describe(explanation.prediction, top_k))
    typer.echo(f"  {maps.quantity}, in {maps.layer}")
    for note in recognizer.card.notes:
        typer.echo(f"  {note}")
    if checked is not None:
        typer.echo(f"  Check: {checked}")
    typer.echo(f"{overlay}\n{arrays}\n{images[0].parent} ({len(images)} images)")


def _check(recognizer: Recognizer, explanation: Explanation, maps: AttentionMaps, label: str | None, path: Path) -> str:
    """Check a map; return the result in words and write its numbers to a file."""
    from nonlocal_video.inference.map_check import quick_check, quick_draws
    from nonlocal_video.inference.prediction import printable

    bar = progress_bar(BarColumn(), TextColumn("checking, {task.completed} of {task.total} views"), TimeElapsedColumn())
    task = bar.add_task("", total=2 + quick_draws(maps))
    try:
        with bar:
            done = quick_check(
                recognizer, explanation, maps, label=label, on_pass=lambda clips: bar.advance(task, clips)
            )
    except UsageError as error:  # the map ranks no cells; it was drawn all the same
        return str(error)
    about = {
        "path": printable(explanation.prediction.path),
        "model": explanation.prediction.model,
        "method": maps.method,
    }
    row = {**about, "layer": maps.layer, **asdict(done)}
    with atomic_write(path, sync=False) as file:
        file.write(json.dumps(row, indent=1).encode() + b"\n")
    return f"{done.in_words} ({path.name})"


def _point(text: str) -> tuple[float, float, float]:
    """Parse a query point: `"1.5,0.5,0.4"` -> (1.5, 0.5, 0.4)."""
    try:
        seconds, x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"query = {text!r} should be SECONDS,X,Y, such as 1.5,0.5,0.4.") from None
    return seconds, x, y
