"""`nonlocal-video analyze`: complexity, receptive field, attention patterns and recommendations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from nonlocal_video.cli import options
from nonlocal_video.cli.outputs import check_new_file
from nonlocal_video.cli.terminal import STATUS_FAILED, table_console
from nonlocal_video.cli.text import shown
from nonlocal_video.errors import UsageError, VideoError

if TYPE_CHECKING:
    from torch import nn

    from nonlocal_video.models.card import InputSpec

app = typer.Typer(
    help="Analyze a network: complexity, receptive field, attention, recommendations.", no_args_is_help=True
)

Config = Annotated[
    Path | None,
    typer.Option(
        help='Network without weights, instead of --model: a JSON file {"architecture": "resnet3d" or '
        '"inception_i3d", "config": {...}} with the fields of its configuration.'
    ),
]
InputSize = Annotated[
    str | None, typer.Option("--input", help="Input size T,H,W: frames, height, width (default: that of the model).")
]
_MAX_PIXELS = 2**32  # takes minutes to count; far above, PyTorch's sizes overflow
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.command()
def complexity(
    model: options.Model = "default", config: Config = None, input_size: InputSize = None, as_json: AsJson = False
) -> None:
    """Count parameters, operations and activation bytes, without allocating memory."""
    import torch

    from nonlocal_video.analysis.complexity import network_complexity

    with torch.device("meta"):
        network, spec = _untrained(model, config)
    size = _size(input_size, spec)
    counted = network_complexity(network, (1, 3, *size))
    if as_json:
        typer.echo(json.dumps(counted.to_row()))
        return
    console = table_console()
    console.print(f"{counted.network}, one clip of {_words(size)}")
    layers = Table("layer", "parameters", "GMAC")
    for layer in counted.layers:
        layers.add_row(layer.name, f"{layer.parameters:,}", f"{layer.macs / 1e9:.3f}")
    layers.add_row("all", f"{counted.parameters:,}", f"{counted.macs / 1e9:.3f}")
    console.print(layers)
    if counted.blocks:
        blocks = Table(
            "block", "kernel", "sets x N x M", "parameters", "GMAC", "by formula", "as", "map MB", "peak MB", "train MB"
        )
        for block in counted.blocks:
            sets = f"{block.num_sets} x {block.num_queries} x {block.num_keys}"
            figures = (block.counted_macs / 1e9, block.formula_macs / 1e9)
            sizes = (block.map_bytes, block.peak_bytes, block.training_bytes)
            blocks.add_row(
                block.name,
                block.nonlocal_type,
                sets,
                f"{block.parameters:,}",
                *(f"{figure:.3f}" for figure in figures),
                block.evaluation,
                *(f"{number / 1e6:.1f}" for number in sizes),
            )
        console.print(blocks)
    console.print(
        f"1 GMAC = 1e9 multiply-accumulates = 2 GFLOP; blocks do {counted.nonlocal_macs / counted.macs:.1%} of them.\n"
        f"Weights {counted.parameter_bytes / 1e6:.1f} MB; tensors at the peak of inference "
        f"{counted.peak_bytes / 1e6:.1f} MB, held for training {counted.training_bytes / 1e6:.1f} MB a clip."
    )


@app.command("receptive-field")
def receptive_field(
    model: options.Model = "default",
    config: Config = None,
    input_size: InputSize = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer of the effective receptive field (default: the last non-local block).")
    ] = None,
    num_inputs: Annotated[
        int, typer.Option(min=1, help="Number of noise clips over which gradients are averaged.")
    ] = 4,
    output: Annotated[Path | None, typer.Option(help="Image to write, .png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compute theoretical and effective (gradient-based) receptive fields, with and without blocks."""
    check_new_file(output, ".png")

    from nonlocal_video.analysis.effective_receptive_field import compare_fields
    from nonlocal_video.analysis.networks import nonlocal_blocks, without_blocks
    from nonlocal_video.analysis.receptive_field import theoretical_fields

    network, spec = _trained(model, config)
    size = _size(input_size, spec)
    fields = theoretical_fields(network, size)
    plain = {field.layer: field for field in theoretical_fields(without_blocks(network), size)}
    chosen = layer or next(reversed(nonlocal_blocks(network)), fields[-1].layer)
    compared = compare_fields(network, size, chosen, num_inputs=num_inputs)
    if output is not None:
        from nonlocal_video.analysis.pictures import draw_fields

        draw_fields(compared, output)
    if as_json:
        rows = [field.to_row() for field in fields]
        without = [field.to_row() for field in plain.values()]
        typer.echo(json.dumps({"theoretical": rows, "without_blocks": without, "effective": compared.to_row()}))
        return
    console = table_console()
    table = Table("layer", "cells", "stride", "field", "without blocks", title=f"Theoretical, clip of {_words(size)}")
    for field in fields:
        other = plain.get(field.layer)
        without_blocks_extent = None if other is None else other.extent
        columns = (field.cells, field.stride, field.extent, without_blocks_extent)
        table.add_row(field.layer, *map(_times, columns))
    console.print(table)
    measured = Table("effective field of " + chosen, "extent", "deviation", "area, side", title="Frames x pixels")
    for words, effective in (("with blocks", compared.with_blocks), ("without", compared.without_blocks)):
        deviation = " x ".join(f"{number:.1f}" for number in effective.deviation)
        measured.add_row(words, _times(effective.extent), deviation, f"{effective.area_side:.1f}")
    console.print(measured)
    console.print(f"{compared.share_beyond:.2%} of the gradient comes from beyond the field without blocks.")
    if compared.identity_blocks:
        console.print(f"Blocks that add exactly zero, without effect here: {', '.join(compared.identity_blocks)}.")


@app.command()
def attention(
    clips: Annotated[list[str], typer.Argument(help="Video files.")],
    model: options.Model = "default",
    device: options.Device = "auto",
    fast: options.Fast = False,
    decoder: options.Decoder = options.DecoderChoice.auto,
    output: Annotated[list[Path] | None, typer.Option(help="Table (.csv) or plot (.png) to write; repeatable.")] = None,
    no_csv_escape: options.NoCsvEscape = False,
    as_json: AsJson = False,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Measure how wide, how far in time and how strong the attention of each block is, over clips."""
    outputs = output or []
    for path in outputs:
        check_new_file(path, ".csv", ".png")

    from nonlocal_video.analysis.patterns import block_pattern, pattern_table, summary_rows
    from nonlocal_video.blocks import NonLocalBlock
    from nonlocal_video.inference.load import load
    from nonlocal_video.inference.prediction import printable

    patterns, failed = [], 0
    with load(model, device=device, decoder=decoder.value) as recognizer:
        layers = recognizer.nonlocal_layers()
        blocks = {name: layer for name, layer in layers.items() if isinstance(layer, NonLocalBlock)}
        if not blocks:
            raise UsageError(f"Model {recognizer.card.name!r} has no non-local block.")
        for clip in clips:
            try:
                explanation = recognizer.explain_all(clip, fast=fast)
            except VideoError as error:
                typer.echo(f"{shown(clip)}: {error.code}: {error.message}", err=True)
                failed += 1
                continue
            patterns += [
                block_pattern(block, explanation.block_inputs[name], block_name=name, clip=printable(clip))
                for name, block in blocks.items()
            ]
    for path in outputs if patterns else []:
        if path.suffix.lower() == ".csv":
            _write_csv(path, pattern_table(patterns), escape=not no_csv_escape)
        else:
            from nonlocal_video.analysis.pictures import draw_patterns

            draw_patterns(patterns, path)
    summary = summary_rows(patterns)
    if as_json:
        typer.echo(json.dumps({"clips": [pattern.to_row() for pattern in patterns], "blocks": summary}))
    elif patterns:
        _print_patterns(summary)
    if failed:
        raise typer.Exit(STATUS_FAILED)


@app.command()
def recommend(
    memory_gb: Annotated[
        float | None, typer.Option(min=0.001, help="Memory limit for one clip, in GB, including weights.")
    ] = None,
    clips_per_second: Annotated[
        float | None, typer.Option(min=1e-6, help="Required throughput, in clips per second.")
    ] = None,
    model: options.Model = "default",
    config: Config = None,
    input_size: InputSize = None,
    device: options.Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Recommend inputs and blocks that meet a limit of memory or time, from measurements on this machine."""
    if memory_gb is None and clips_per_second is None:
        raise UsageError("Give a limit: --memory-gb, --clips-per-second, or both.")

    from nonlocal_video.analysis.rates import measure_rates
    from nonlocal_video.analysis.recommend import Limits
    from nonlocal_video.analysis.recommend import recommend as recommend_settings
    from nonlocal_video.inference.runtimes.device import choose_device

    network, spec = _trained(model, config)
    size = _size(input_size, spec)
    limits = Limits(
        memory_bytes=None if memory_gb is None else memory_gb * 1e9,
        seconds_per_clip=None if clips_per_second is None else 1 / clips_per_second,
    )
    rates = measure_rates(network, size, device=choose_device(device))
    settings = recommend_settings(network, size, limits, rates)
    if as_json:
        typer.echo(json.dumps([setting.to_row() for setting in settings]))
        return
    console = table_console()
    console.print(
        f"Measured on {rates.device}, {rates.num_threads} threads: {_words(size)} {rates.larger.seconds:.3f} s, "
        f"{rates.larger.peak_bytes / 1e9:.2f} GB beyond weights and input."
    )
    table = Table("change", "weights", "GMAC", "s a clip, predicted", "GB, predicted", "keeps the limits")
    for setting in settings:
        table.add_row(
            setting.change,
            "kept" if setting.keeps_weights else "blocks need training",
            f"{setting.macs / 1e9:.2f}",
            f"{setting.predicted_seconds:.3f}",
            f"{setting.predicted_bytes / 1e9:.2f}",
            "yes" if setting.meets_limits else "NO, nothing does",
        )
    console.print(table)


def _print_patterns(summary: Sequence[Mapping[str, Any]]) -> None:
    console = table_console()
    table = Table(
        "block", "clips", "entropy, nats", "ln M", "effective positions", "on itself", "own frame", "|Wy|/|x|", "|W|"
    )
    for row in summary:
        table.add_row(
            row["block"],
            str(row["num_clips"]),
            "none" if row["entropy_nats"] is None else f"{row['entropy_nats']:.2f}",
            f"{row['maximum_entropy_nats']:.2f}",
            "none"
            if row["effective_positions"] is None
            else f"{row['effective_positions']:.1f} of {row['num_visible']}",
            f"{row['self_share']:.2%}",
            f"{row['own_frame_share']:.2%}",
            f"{row['residual_share']:.4f}",
            f"{row['out_weight_norm']:.3g}",
        )
    console.print(table)
    if silent := [row["block"] for row in summary if row["is_identity"]]:
        console.print(
            f"Blocks that add exactly zero, as new ones do: {', '.join(silent)}. Their attention changes no answer."
        )


def _untrained(model: str, config: Path | None) -> tuple[nn.Module, InputSpec | None]:
    """Return a randomly initialised network, and the input of its model if known."""
    if config is not None:
        return _described(model, config), None
    from nonlocal_video.models.checkpoint import build_network, read_card
    from nonlocal_video.zoo.catalogue import find, load_network
    from nonlocal_video.zoo.own_network import is_function

    if is_function(model):  # only the function can build it
        network, card = load_network(model)
        return network, card.input
    card = read_card(find(model))
    return build_network(card), card.input


def _trained(model: str, config: Path | None) -> tuple[nn.Module, InputSpec | None]:
    if config is not None:
        return _described(model, config).eval(), None
    from nonlocal_video.zoo.catalogue import load_network

    network, card = load_network(model)
    return network, card.input


def _described(model: str, config: Path) -> nn.Module:
    """Return the network described by the file of --config."""
    from nonlocal_video.analysis.networks import network_from_json

    if model not in ("default", options.default_model()):
        raise UsageError(f"--model {model} and --config {config} are two networks; give only one.")
    return network_from_json(config)


def _size(text: str | None, spec: InputSpec | None) -> tuple[int, int, int]:
    """Parse an input size: `"16,112,112"` -> (16, 112, 112); without text, return that of the model."""
    if text is None:
        if spec is None:
            raise UsageError("--config does not define the input size; give it with --input T,H,W.")
        return spec.num_frames, spec.crop, spec.crop
    try:
        frames, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"input = {text!r} should be T,H,W, such as 16,112,112.") from None
    if min(frames, height, width) < 1:
        raise UsageError(f"input = {text!r} should have numbers of at least 1.")
    if frames * height * width > _MAX_PIXELS:
        raise UsageError(f"input = {text!r} should have at most {_MAX_PIXELS:,} pixels in total.")
    return frames, height, width


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, escape: bool) -> None:
    from nonlocal_video.inference.csv_cells import write_rows

    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("x", encoding="utf-8", newline="") as file:
        write_rows(file, columns, rows, escape=escape)


def _words(size: Sequence[int]) -> str:
    return f"{size[0]} frames of {size[1]}x{size[2]}"


def _times(numbers: Sequence[float] | None) -> str:
    """Join numbers: (7, inf, 59) -> "7 x all x 59"."""
    return (
        "" if numbers is None else " x ".join("all" if number == float("inf") else f"{number:g}" for number in numbers)
    )
