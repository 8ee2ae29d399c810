"""`nonlocal-video explain`: the overlay video, its frames and the arrays behind them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.text import describe
from nonlocal_video.errors import UsageError


class MethodChoice(str, Enum):
    """What the overlay shows."""

    attention = "attention"
    query = "query"
    gradcam = "gradcam"


def explain(
    video: Annotated[str, typer.Argument(help="The video file.")],
    output: Annotated[Path, typer.Option(help="Folder for overlay.mp4, frames/ and attention.npz.")] = Path(
        "explained"
    ),
    method: Annotated[
        MethodChoice | None,
        typer.Option(help="attention received, a query point's attention, or class evidence (gradcam)."),
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="SECONDS,X,Y: a time and fractions of the frame's width and height.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Class for gradcam; the likeliest unless named.")] = None,
    layer: Annotated[str | None, typer.Option(help="Non-local block, or for gradcam any layer.")] = None,
    model: options.Model = "default",
    device: options.Device = "auto",
    fast: options.Fast = False,
    start_seconds: options.StartSeconds = None,
    end_seconds: options.EndSeconds = None,
    top_k: options.TopK = 5,
    decoder: options.Decoder = options.DecoderChoice.auto,
) -> None:
    """Show where the network looked: overlay.mp4, frames/*.png and attention.npz."""
    point = None if query is None else _point(query)

    from nonlocal_video.attention.maps import QueryPoint
    from nonlocal_video.inference.recognizer import load

    query_point = None if point is None else QueryPoint(*point)
    with load(model, device=device, decoder=decoder.value) as recognizer:
        look = recognizer.look(
            video,
            fast=fast,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            around_seconds=None if query_point is None else query_point.seconds,
        )
        maps = look.explain(
            method=None if method is None else method.value, query=query_point, label=label, layer=layer
        )
        output.mkdir(parents=True, exist_ok=True)
        overlay = maps.overlay(output / "overlay.mp4")
        pictures = maps.save_frames(output / "frames")
        arrays = maps.save_arrays(output / "attention.npz")
    typer.echo(describe(look.prediction, top_k))
    typer.echo(f"  {maps.quantity}, in {maps.layer}")
    for note in recognizer.card.notes:
        typer.echo(f"  {note}")
    typer.echo(f"{overlay}\n{arrays}\n{pictures[0].parent} ({len(pictures)} pictures)")


def _point(text: str) -> tuple[float, float, float]:
    """`"1.5,0.5,0.4"` -> (1.5, 0.5, 0.4)."""
    try:
        seconds, x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"query = {text!r} should be SECONDS,X,Y, like 1.5,0.5,0.4.") from None
    return seconds, x, y
