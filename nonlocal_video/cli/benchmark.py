"""`nonlocal-video benchmark`: measurements with the machine's description, as JSON and as tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nonlocal_video.cli import options
from nonlocal_video.errors import UsageError
from nonlocal_video.io import check_new

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from nonlocal_video.blocks import NonLocalBlock

benchmark = typer.Typer(help="Measure this installation: JSON with the machine's description, and tables.")
DEFAULT_BLOCK = "nonlocal_Mixed_4f"


@benchmark.command()
def ops(
    output: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny shapes, and no variants: a smoke test.")] = False,
    large_softmax: Annotated[
        bool, typer.Option("--large-softmax", help="Also softmax over 131,072 unpooled keys: minutes each.")
    ] = False,
    clip: Annotated[
        str | None, typer.Option(help="Video on whose features the variants are compared; else a sample clip.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")] = 1,
    write_docs: Annotated[
        Path | None, typer.Option(help="Page, docs/kernels.md, whose tables to write between its markers.")
    ] = None,
) -> None:
    """The non-local operation, ours against the naive formula: time, memory, error, scaling; and the variants."""
    import json
    import sys

    from rich.console import Console

    from nonlocal_video.benchmark.ops import benchmark_ops, benchmark_variants
    from nonlocal_video.benchmark.ops_report import screen_tables
    from nonlocal_video.benchmark.ops_report import write_docs as write_page

    _check_output(output)
    real = None if quick else _real_features(clip)  # first: a clip that cannot be read is told at once
    results = benchmark_ops(
        quick=quick, large_softmax=large_softmax, threads=threads, notify=lambda text: typer.echo(text, err=True)
    )
    if real is not None:
        block, features = real
        size = " x ".join(map(str, features.shape[2:]))
        results["variants"] = {
            "features": f"the default model's features {DEFAULT_BLOCK.removeprefix('nonlocal_')}, {size} positions",
            "rows": benchmark_variants(block, features, threads=threads),
        }
    if output is not None:
        output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if write_docs is not None:
        write_page(results, write_docs)
    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in screen_tables(results):
        console.print(table)


@benchmark.command()
def pipeline(
    paths: Annotated[list[str], typer.Argument(help="Clips, folders and patterns; all clips must be readable.")],
    model: options.Model = "default",
    device: options.Device = "auto",
    runtime: options.Runtime = options.RuntimeChoice.torch,
    fast: options.Fast = False,
    workers: Annotated[int, typer.Option(min=1, help="Decoding processes beside the network.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Views in one forward pass.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Turns; the median counts.")] = 3,
    output: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
) -> None:
    """The folder run: files per second of decoding alone, of the network alone, and of both together."""
    _check_output(output)

    from rich.table import Table

    from nonlocal_video.benchmark.pipeline import benchmark_pipeline
    from nonlocal_video.inference.files import find_files
    from nonlocal_video.inference.load import load

    with load(model, device=device, runtime=runtime.value) as recognizer:
        results = benchmark_pipeline(
            recognizer,
            list(find_files(paths)),
            fast=fast,
            workers=workers,
            batch_size=batch_size,
            rounds=rounds,
            notify=lambda text: typer.echo(text, err=True),
        )
    table = Table("", "files/s")
    for name, rate in results["files_per_second"].items():
        table.add_row(name.replace("_", " "), f"{rate:.3f}")
    table.add_row("both, of the slower of the two", f"{results['both_against_slower']:.1%}")
    _finish(results, output, table)


@benchmark.command()
def model(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Catalogue names (weights need not be here), .safetensors files, training runs."),
    ] = None,
    device: options.Device = "auto",
    runtime: Annotated[
        str,
        typer.Option(
            help="torch, openvino, or eager: PyTorch with the network as it was trained; several with commas."
        ),
    ] = "torch",
    batch_size: Annotated[str, typer.Option(help="Views in one forward pass; several as 1,2,4.")] = "1",
    rounds: Annotated[int, typer.Option(min=1, help="Turns; the median counts.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch; without it, its own choice.")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
) -> None:
    """The network alone, full and --fast view, as every other verb runs it: seconds a view, views and GMAC a second."""
    from nonlocal_video.benchmark.model import benchmark_model
    from nonlocal_video.cli.benchmark_text import model_table

    _check_output(output)
    results = benchmark_model(
        models or [options.default_model()],
        device=device,
        runtimes=_runtimes(runtime),
        batch_sizes=_batch_sizes(batch_size),
        rounds=rounds,
        threads=threads,
        notify=lambda text: typer.echo(text, err=True),
    )
    _finish(results, output, model_table(results))


@benchmark.command()
def decode(
    clips: Annotated[list[str], typer.Argument(help="Clips, folders and patterns.")],
    model: options.Model = "default",
    fast: options.Fast = False,
    decoder: Annotated[
        list[options.DecoderChoice] | None,
        typer.Option(help="May be repeated; decord is timed only where it is exact. Without it, auto."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns; the median counts.")] = 3,
    output: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
) -> None:
    """Reading alone: seconds for one view's frames, frames a second of whole files, and the decoder that served."""
    _check_output(output)

    from nonlocal_video.benchmark.decode import benchmark_decode
    from nonlocal_video.cli.benchmark_text import decode_table
    from nonlocal_video.inference.files import find_files
    from nonlocal_video.models.checkpoint import read_card
    from nonlocal_video.zoo.catalogue import find

    results = benchmark_decode(
        list(find_files(clips)),
        read_card(find(model)),
        fast=fast,
        decoders=[choice.value for choice in decoder or [options.DecoderChoice.auto]],
        rounds=rounds,
        notify=lambda text: typer.echo(text, err=True),
    )
    _finish(results, output, decode_table(results))
    if any(row["status"] == "error" for row in results["rows"]):
        raise typer.Exit(1)


def _batch_sizes(text: str) -> list[int]:
    """`"1,2,4"` -> [1, 2, 4]."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"batch-size = {text!r} should be whole numbers, like 4 or 1,2,4.") from None


def _runtimes(text: str) -> list[Any]:
    """`"eager,openvino"` -> ["eager", "openvino"]; what they are called is checked where they are run."""
    return [part.strip() for part in text.split(",")]


def _check_output(output: Path | None) -> None:
    """Before minutes of measuring: a file of this name can be made, and there is none."""
    if output is not None:
        check_new(output)
        output.parent.mkdir(parents=True, exist_ok=True)


def _finish(results: dict[str, Any], output: Path | None, table: Table) -> None:
    """The file, then the table; if the file cannot be written, the figures are not lost with it."""
    import json
    import sys

    from rich.console import Console

    try:
        if output is not None:
            output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    finally:
        Console(width=None if sys.stdout.isatty() else 160).print(table)


def _real_features(clip: str | None) -> tuple[NonLocalBlock, Tensor]:
    """The default model's non-local block, and what goes into it for a clip."""
    from nonlocal_video.blocks import NonLocalBlock
    from nonlocal_video.inference.load import load
    from nonlocal_video.samples import fetch_samples

    with load("default", device="cpu") as recognizer:
        explanation = recognizer.explain_all(clip or fetch_samples()[0].path)
    block = explanation.network.get_submodule(DEFAULT_BLOCK)
    assert isinstance(block, NonLocalBlock)
    return block, explanation.block_inputs[DEFAULT_BLOCK][:1]
