"""Options shared by several commands."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from nonlocal_video.errors import UsageError
from nonlocal_video.frame_folders import RATE_VARIABLE, checked_rate


class DecoderChoice(StrEnum):
    """Video decoders."""

    auto = "auto"
    decord = "decord"
    pyav = "pyav"


class RuntimeChoice(StrEnum):
    """Runtimes of the network."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"


class PrecisionChoice(StrEnum):
    """Numeric precisions of the network."""

    float32 = "float32"
    tf32 = "tf32"
    bf16 = "bf16"


class Engine(StrEnum):
    """Engines of a folder run."""

    local = "local"
    ray = "ray"


MODEL_VARIABLE = "NONLOCAL_VIDEO_MODEL"


def default_model() -> str:
    """Return the model used without `--model`: `$NONLOCAL_VIDEO_MODEL`, or the one in the package."""
    return os.environ.get(MODEL_VARIABLE) or "default"


def _set_rate(value: float | None) -> float | None:
    """Set the frame rate of folders of JPEGs for this command and the processes that it starts."""
    if value is not None:
        os.environ[RATE_VARIABLE] = repr(checked_rate(value))
    return value


Model = Annotated[
    str,
    typer.Option(
        envvar=MODEL_VARIABLE,
        help="Catalogue name, .safetensors file of this project, folder of a training run, hf://owner/name of the "
        "Hugging Face Hub, or package.module:function that returns a network and its card.",
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")]
Devices = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:N or cuda:all (one process per GPU).")]
Runtime = Annotated[
    RuntimeChoice,
    typer.Option(
        help="Runtime; auto is openvino where it saves time on a CPU, with the same scores up to rounding, else torch."
    ),
]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(
        help="Numeric precision; tf32 (NVIDIA GPUs) and bf16 are faster and change scores slightly, see docs/speed.md."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of decoding processes (default: with a GPU one per core, at most 16; on the CPU one per four "
        "cores).",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Views per forward pass (default: as many as fit on a GPU, at most 32; 1 on the CPU)."),
]
Decoder = Annotated[
    DecoderChoice, typer.Option(help="Decoder; auto uses for each file one that was measured to be exact.")
]
Fast = Annotated[bool, typer.Option("--fast", help="Use the cheaper input of the model card: faster, less accurate.")]
StartSeconds = Annotated[
    float | None,
    typer.Option(help="Start of the part to use, in seconds as shown by a player (default: start of the video)."),
]
EndSeconds = Annotated[
    float | None, typer.Option(help="End of the part to use, in seconds (default: end of the video).")
]
Region = Annotated[
    str | None,
    typer.Option(
        metavar="X0,Y0,X1,Y1",
        help="Region of the frame to use, in fractions of width and height; 0.5,0,1,1 is the right half.",
    ),
]
AllFiles = Annotated[
    bool,
    typer.Option(
        "--all-files",
        help="Try every file in a folder. By default, hidden files and files that are not videos by name (text, "
        "images, audio, archives and others) are skipped and counted.",
    ),
]
Limit = Annotated[
    list[str] | None, typer.Option(help="Limit for a file, such as max_duration_seconds=600; repeatable.")
]
FramesPerSecond = Annotated[
    float | None,
    typer.Option(
        envvar=RATE_VARIABLE,
        callback=_set_rate,
        help="Take folders of JPEGs (extracted frames, as in Jester) for clips of this frame rate.",
    ),
]
Include = Annotated[
    list[str] | None, typer.Option(help="Use only files that match a pattern, such as *.mp4; repeatable.")
]
Exclude = Annotated[list[str] | None, typer.Option(help="Skip files that match a pattern; repeatable.")]
Shard = Annotated[str | None, typer.Option(help="K/N: use only the K-th of N disjoint parts of the files.")]
WindowSeconds = Annotated[
    float | None, typer.Option(help="Length of a window in seconds (default: that of the model's input).")
]
IgnoreColumn = Annotated[list[str] | None, typer.Option(help="Column of the CSV to ignore; repeatable.")]
TopK = Annotated[int, typer.Option(min=1, help="Number of classes to show.")]
NoCsvEscape = Annotated[
    bool,
    typer.Option(
        "--no-csv-escape",
        help="Do not put an apostrophe before text in a CSV that looks like a formula (= + - @).",
    ),
]
EngineOption = Annotated[Engine, typer.Option(help="Engine; ray runs on Ray Data, on this machine or a cluster.")]
RayAddress = Annotated[
    str | None, typer.Option(help="Address of a running Ray cluster, or auto (default: start Ray on this machine).")
]
RayActors = Annotated[
    int | None, typer.Option(min=1, help="Number of Ray processes with a network (default: one per GPU, or one).")
]
RayGpus = Annotated[float | None, typer.Option(min=0, help="GPUs per Ray process; 0.5 lets two share one.")]
RayCpus = Annotated[float | None, typer.Option(min=0, help="CPUs per Ray process (default: 1).")]


def refuse_ray_options(
    engine: Engine, address: str | None, actors: int | None, gpus: float | None, cpus: float | None
) -> None:
    """Refuse options of Ray without its engine.

    Raises:
        UsageError: One was given.
    """
    of_ray = {"--ray-address": address, "--ray-actors": actors, "--ray-gpus": gpus, "--ray-cpus": cpus}
    given = [name for name, value in of_ray.items() if value is not None]
    if given and engine is not Engine.ray:
        raise UsageError(f"{', '.join(given)} only act with --engine ray.")
