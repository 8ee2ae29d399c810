"""`nonlocal-video benchmark`: timings, as tables and as JSON with a description of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.terminal import STATUS_FAILED, table_console
from nonlocal_video.errors import UsageError
from nonlocal_video.io import check_new

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from nonlocal_video.blocks import NonLocalBlock

benchmark = typer.Typer(help="Measure the speed of this installation; prints tables and writes JSON.")
VARIANTS_LAYER = "Mixed_4f"
"""Layer of the default model on whose features the variants are compared: more positions than its block has."""
VARIANTS_CHANNELS = 128


@benchmark.command()
def ops(
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smoke test: tiny shapes, without variants.")] = False,
    large_softmax: Annotated[
        bool, typer.Option("--large-softmax", help="Also run softmax over 131,072 unpooled keys; takes minutes each.")
    ] = False,
    clip: Annotated[
        str | None, typer.Option(help="Video whose features the variants are compared on (default: a sample clip).")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Number of PyTorch threads.")] = 1,
    write_docs: Annotated[
        Path | None, typer.Option(help="Page whose tables to update, such as docs/kernels.md.")
    ] = None,
) -> None:
    """Compare the non-local operation with the naive formula: time, memory, error and scaling; and its variants."""
    import json

    from nonlocal_video.benchmark.ops import benchmark_ops, benchmark_variants
    from nonlocal_video.benchmark.ops_report import screen_tables
    from nonlocal_video.benchmark.ops_report import write_docs as write_page

    _check_output(output)
    real = None if quick else _real_features(clip)  # first, to report an unreadable clip at once
    results = benchmark_ops(
        quick=quick, large_softmax=large_softmax, threads=threads, notify=lambda text: typer.echo(text, err=True)
    )
    if real is not None:
        block, features = real
        size = " x ".join(map(str, features.shape[2:]))
        results["variants"] = {
            "features": f"the default model's features {VARIANTS_LAYER}, {size} positions",
            "rows": benchmark_variants(block, features, threads=threads),
        }
    if output is not None:
        output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if write_docs is not None:
        write_page(results, write_docs)
    console = table_console()
    for table in screen_tables(results):
        console.print(table)


@benchmark.command()
def pipeline(
    paths: Annotated[
        list[str], typer.Argument(help="Video files, folders and glob patterns; all clips must be readable.")
    ],
    model: options.Model = "default",
    device: options.Device = "auto",
    runtime: options.Runtime = options.RuntimeChoice.auto,
    fast: options.Fast = False,
    workers: Annotated[int, typer.Option(min=1, help="Number of decoding processes.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Views per forward pass.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Number of repetitions; the median is reported.")] = 3,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure a folder run: files per second of decoding alone, of the network alone, and of both together."""
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
        typer.Argument(
            help="Catalogue names (with or without weights), .safetensors files or folders of training runs."
        ),
    ] = None,
    device: options.Device = "auto",
    runtime: Annotated[
        str,
        typer.Option(
            help="Runtimes: torch, openvino, or eager (PyTorch without optimisations); several separated by commas."
        ),
    ] = "torch",
    batch_size: Annotated[str, typer.Option(help="Views per forward pass; several as 1,2,4.")] = "1",
    rounds: Annotated[int, typer.Option(min=1, help="Number of repetitions; the median is reported.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of PyTorch threads (default: chosen by PyTorch).")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure the network alone, full and --fast: seconds per view, views and GMAC per second."""
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
    clips: Annotated[list[str], typer.Argument(help="Video files, folders and glob patterns.")],
    model: options.Model = "default",
    fast: options.Fast = False,
    decoder: Annotated[
        list[options.DecoderChoice] | None,
        typer.Option(help="Decoder; repeatable. decord is timed only where it is exact (default: auto)."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of repetitions; the median is reported.")] = 3,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure decoding alone: seconds per view, frames per second of whole files, and the decoder used."""
    _check_output(output)

    from nonlocal_video.benchmark.decode import benchmark_decode
    from nonlocal_video.cli.benchmark_text import decode_table
    from nonlocal_video.inference.files import find_files
    from nonlocal_video.zoo.catalogue import card_of

    results = benchmark_decode(
        list(find_files(clips)),
        card_of(model),
        fast=fast,
        decoders=[choice.value for choice in decoder or [options.DecoderChoice.auto]],
        rounds=rounds,
        notify=lambda text: typer.echo(text, err=True),
    )
    _finish(results, output, decode_table(results))
    if any(row["status"] == "error" for row in results["rows"]):
        raise typer.Exit(STATUS_FAILED)


def _batch_sizes(text: str) -> list[int]:
    """Parse batch sizes: `"1,2,4"` -> [1, 2, 4]."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"batch-size = {text!r} should be whole numbers, such as 4 or 1,2,4.") from None


def _runtimes(text: str) -> list[Any]:
    """Split a list of runtimes: `"eager,openvino"` -> ["eager", "openvino"]."""
    return [part.strip() for part in text.split(",")]


def _check_output(output: Path | None) -> None:
    """Check that the output is a new file, before minutes of measuring."""
    if output is not None:
        check_new(output)
        output.parent.mkdir(parents=True, exist_ok=True)


def _finish(results: dict[str, Any], output: Path | None, table: Table) -> None:
    """Write the file and print the table, also if writing fails."""
    import json

    try:
        if output is not None:
            output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    finally:
        table_console(160).print(table)


def _real_features(clip: str | None) -> tuple[NonLocalBlock, Tensor]:
    """Return a block of the whitened principal directions of the default model's features for a clip; and these."""
    from nonlocal_video.benchmark.principal import set_principal
    from nonlocal_video.blocks import NonLocalConfig, VideoNonLocalBlock
    from nonlocal_video.inference.load import load
    from nonlocal_video.models.inception3d import InceptionI3D
    from nonlocal_video.samples import fetch_samples

    with load("default", device="cpu") as recognizer:
        view = recognizer.explain_all(clip or fetch_samples()[0].path).clip.network_input(0, 0)
        network = cast(InceptionI3D, recognizer.network)
        features = network.extract_features(view, [VARIANTS_LAYER])[VARIANTS_LAYER][:1].detach()
    config = NonLocalConfig(VARIANTS_CHANNELS, sub_sample=False, bn_layer=False, scale=0.5 * VARIANTS_CHANNELS**-0.5)
    block = VideoNonLocalBlock.from_config(features.shape[1], config).eval()
    set_principal(block, features[0].flatten(1).T)
    return block, features
