"""`nonlocal-video export`: a model as a file for another runtime, checked against the model itself."""

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
        typer.Argument(help="Catalogue name, a .safetensors file saved by this project, or a training run's folder."),
    ],
    formats: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT[,FORMAT]", help="onnx, openvino, torch-export; several with commas."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="The file without its ending: each format adds its own, .onnx, .xml (and .bin beside it) or .pt2. "
            "For one format the ending may be given. What is there is replaced."
        ),
    ],
    fast: options.Fast = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Views that the file takes at once; any number if not given.")
    ] = None,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO or torch.export; only a file that gives the model's logits is kept."""
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
    """Format -> its file."""
    from nonlocal_video.export.formats import FORMATS

    names = list(dict.fromkeys(name.strip() for name in formats.split(",")))
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise UsageError(f"--format {formats} has {unknown[0]!r}; give one or some of {', '.join(FORMATS)}.")
    if not output.name:
        raise UsageError(f"--output {str(output)!r} names no file; give one, like model.")
    owner = next((name for name, known in FORMATS.items() if output.suffix == known.ending), None)
    if owner is not None and names != [owner]:
        raise UsageError(
            f"--output {output} has the ending of {owner}, and --format is {', '.join(names)}; leave the ending away "
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
        f"  checked with {exported.runtime} on {agreement.num_views} made-up views: largest difference "
        f"{agreement.largest_difference:.1e}, {agreement.share:.1e} of the largest logit",
        f"  seconds a view on this CPU, {exported.num_threads} thread(s): PyTorch {exported.seconds_eager:.3f}, "
        f"this file {exported.seconds_exported:.3f}; {ratio:.2f} times PyTorch's speed",
        *(f"  {note}" for note in exported.notes),
    ]
    return "\n".join(lines)
