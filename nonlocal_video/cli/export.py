"""`nonlocal-video export`: export a model for another runtime, checked against the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonlocal_video.cli import options
from nonlocal_video.errors import UsageError
from nonlocal_video.io import check_new

if TYPE_CHECKING:
    from nonlocal_video.export.write import Exported


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Catalogue name, .safetensors file of this project, folder of a training run, or "
            "package.module:function that returns a network and its card."
        ),
    ],
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT[,FORMAT]",
            help="Formats: onnx, openvino, torch-export; several separated by commas.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Path of the file without suffix: each format adds its own, .onnx, .xml (with a .bin file) or .pt2. "
            "With a single format, the suffix may be given."
        ),
    ],
    fast: options.Fast = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Fixed number of views per call (default: any number).")
    ] = None,
) -> None:
    """Export a model to ONNX Runtime, OpenVINO or torch.export; a file is kept only if its logits match."""
    from nonlocal_video.export.formats import check_installed
    from nonlocal_video.export.write import export_network
    from nonlocal_video.zoo.catalogue import load_network

    outputs = _outputs(formats, output)
    for path in outputs.values():
        check_new(path)
    for name in outputs:  # all of them before the first long export
        check_installed(name)
    network, card = load_network(model)
    for name, path in outputs.items():
        exported = export_network(network, card, path, format_name=name, fast=fast, batch_size=batch_size)
        typer.echo(_described(exported))


def _outputs(formats: str, output: Path) -> dict[str, Path]:
    """Return the output file of each format."""
    from nonlocal_video.export.formats import FORMATS

    names = list(dict.fromkeys(name.strip() for name in formats.split(",")))
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise UsageError(f"--format {formats} contains {unknown[0]!r}; the formats are {', '.join(FORMATS)}.")
    if not output.name:
        raise UsageError(f"--output {str(output)!r} is not a file; give one, such as model.")
    owner = next((name for name, known in FORMATS.items() if output.suffix == known.ending), None)
    if owner is not None and names != [owner]:
        raise UsageError(
            f"--output {output} has the suffix of {owner}, and --format is {', '.join(names)}; omit the suffix, "
            "and each format adds its own."
        )
    stem = output.with_suffix("") if owner else output
    return {name: stem.with_name(stem.name + FORMATS[name].ending) for name in names}


def _described(exported: Exported) -> str:
    first, *others = exported.files
    beside = "".join(f" and {path.name}" for path in others)
    sides = ", ".join("any" if side is None else str(side) for side in exported.shape)
    agreement = exported.agreement
    ratio = exported.seconds_eager / exported.seconds_exported
    lines = [
        f"{first}{beside}: {exported.num_bytes / 1e6:.1f} MB, clip ({sides}) -> logits, float32",
        f"  checked with {exported.runtime} on {agreement.num_views} random views: largest difference "
        f"{agreement.largest_difference:.1e}, {agreement.share:.1e} of the largest logit",
        f"  seconds per view on this CPU, {exported.num_threads} thread(s): PyTorch {exported.seconds_eager:.3f}, "
        f"this file {exported.seconds_exported:.3f}; {ratio:.2f} times PyTorch's speed",
        *(f"  {note}" for note in exported.notes),
    ]
    return "\n".join(lines)
