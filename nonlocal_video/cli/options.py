"""Options that several verbs share."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer


class DecoderChoice(StrEnum):
    """Which decoder reads the files."""

    auto = "auto"
    decord = "decord"
    pyav = "pyav"


class RuntimeChoice(StrEnum):
    """What runs the network."""

    torch = "torch"
    openvino = "openvino"


class PrecisionChoice(StrEnum):
    """The arithmetic of the network."""

    float32 = "float32"
    tf32 = "tf32"
    bf16 = "bf16"


MODEL_VARIABLE = "NONLOCAL_VIDEO_MODEL"


def default_model() -> str:
    """Return the model that verbs take without `--model`: `$NONLOCAL_VIDEO_MODEL`, else the one of the package."""
    return os.environ.get(MODEL_VARIABLE) or "default"


Model = Annotated[
    str,
    typer.Option(
        envvar=MODEL_VARIABLE,
        help="Catalogue name, a .safetensors file saved by this project, or a training run's folder.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Devices = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or cuda:all, which is a process for each GPU.")]
Runtime = Annotated[
    RuntimeChoice,
    typer.Option(help="openvino: the same scores up to rounding, in less time on a CPU; see docs/speed.md."),
]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(help="tf32 (NVIDIA GPUs) and bf16 are coarser arithmetic that moves scores; see docs/speed.md."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Decoding processes beside the network (default: on a GPU one a core, at most 16; on the CPU one for "
        "every four cores).",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Views in one forward pass (default: as many as fit a GPU, at most 32; 1 on the CPU)."),
]
Decoder = Annotated[DecoderChoice, typer.Option(help="auto takes for each file the decoder measured to be exact.")]
Fast = Annotated[bool, typer.Option("--fast", help="The model card's cheaper view.")]
StartSeconds = Annotated[float | None, typer.Option(help="Only look from here on; as a player counts.")]
EndSeconds = Annotated[float | None, typer.Option(help="Only look up to here.")]
Region = Annotated[
    str | None,
    typer.Option(
        metavar="X0,Y0,X1,Y1",
        help="Only look at this part of the picture, in fractions of width and height; 0.5,0,1,1 is the right half.",
    ),
]
AllFiles = Annotated[
    bool,
    typer.Option(
        "--all-files",
        help="Try every file of a folder. Without it hidden files, and names of text, pictures, sound, archives and "
        "other files that are no clips, are passed over and counted.",
    ),
]
IgnoreColumn = Annotated[
    list[str] | None, typer.Option(help="Column of the CSV that is for other programs; may be repeated.")
]
TopK = Annotated[int, typer.Option(min=1, help="Classes to show.")]
NoCsvEscape = Annotated[
    bool,
    typer.Option(
        "--no-csv-escape",
        help="In a CSV, leave text that begins like a formula (= + - @) without an apostrophe before it.",
    ),
]
