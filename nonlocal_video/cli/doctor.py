"""`nonlocal-video doctor`: report what is installed, what works, and how to fix the rest."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import typer
from rich.markup import escape
from rich.table import Table

from nonlocal_video import __version__
from nonlocal_video.cli.terminal import STATUS_FAILED, table_console
from nonlocal_video.errors import NonlocalVideoError, VideoError

PACKAGES = (
    "torch",
    "torchvision",
    "pytorchvideo",
    "av",
    "decord",
    "openvino",
    "gradio",
    "safetensors",
    "pyarrow",
)
EXTRA_OF_PACKAGE = {
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "ray": "ray",
    "lightning": "train",
    "transformers": "transformers",
    "manimgx-fonts": "fonts",
    "noto-cjk-sans-jp-regular": "fonts",
}


def doctor() -> None:
    """Report what is installed, which decoders and devices work, and how to fix the rest."""
    console = table_console()
    cores = os.cpu_count()
    system = f"{platform.system()} {platform.machine()}, {cores} core{'' if cores == 1 else 's'}"
    console.print(f"nonlocal-video {__version__}, Python {platform.python_version()}, {system}")
    console.print(_packages())

    checks = Table("what", "works", "details")
    needed_all_work = True
    for name, needed, check in (
        ("decoder pyav", True, lambda: _decode("pyav")),
        ("decoder decord", False, lambda: _decode("decord")),
        ("decoding confined", False, _confinement),
        ("default model", True, _default_model),
        ("device cpu", True, lambda: _convolution("cpu")),
        ("device cuda", False, _cuda),
        ("runtime openvino", False, _openvino),
    ):
        works, details = _try(check)
        needed_all_work = needed_all_work and (works or not needed)
        checks.add_row(name, "yes" if works else "NO" if needed else "no", escape(details))
    console.print(checks)
    console.print(_decoder_choice())
    raise typer.Exit(0 if needed_all_work else STATUS_FAILED)


def _packages() -> Table:
    table = Table("package", "version", "")
    for name in PACKAGES:
        table.add_row(name, _version(name) or "missing", "")
    for name, extra in EXTRA_OF_PACKAGE.items():
        found = _version(name)
        hint = "" if found else f'optional: pip install "nonlocal-video[{extra}]"'
        table.add_row(name, found or "not installed", escape(hint))
    return table


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _try(check: Callable[[], str]) -> tuple[bool, str]:
    """Return whether a check passes, and its details or its error."""
    try:
        return True, check()
    except NonlocalVideoError as error:
        return False, str(error)
    except Exception as error:  # the doctor reports anything that is broken, and continues
        return False, f"{type(error).__name__}: {error}"


def _decode(decoder: Literal["decord", "pyav"]) -> str:
    """Write a small clip, read it back and compare."""
    import numpy as np

    from nonlocal_video.video.decode import VideoReader
    from nonlocal_video.video.encode import write_video

    brightness = [40, 120, 200]
    with tempfile.TemporaryDirectory() as folder, VideoReader(decoder=decoder) as reader:
        path = Path(folder) / "three_greys.mp4"
        write_video(path, (np.full((64, 64, 3), grey, np.uint8) for grey in brightness), fps=10)
        frames = reader.read(path, [0.05, 0.15, 0.25]).frames_thwc
    seen = frames.reshape(len(frames), -1).mean(axis=1)
    if len(seen) != len(brightness) or np.abs(seen - brightness).max() > 4:
        raise NonlocalVideoError(f"wrong frames: brightness {seen.round().tolist()} instead of {brightness}")
    return f"{'av' if decoder == 'pyav' else 'decord'} {_version('av' if decoder == 'pyav' else 'decord')}"


def _confinement() -> str:
    """Return the confinements of a decoding process."""
    from nonlocal_video.video.decode import VideoReader

    with VideoReader() as reader:
        with contextlib.suppress(VideoError):  # starts the process
            reader.probe(os.devnull)
        confined = reader.confined
    if not confined:
        raise NonlocalVideoError("this system enforces only limits of memory and time; see docs/security.md")
    return ", ".join(confined)


def _default_model() -> str:
    from nonlocal_video.cli.options import default_model
    from nonlocal_video.models.checkpoint import load_checkpoint
    from nonlocal_video.zoo.catalogue import find

    path = find(default_model())
    _, card = load_checkpoint(path)
    return f"{card.name}, {len(card.labels)} classes, {path.stat().st_size / 1e6:.0f} MB"


def _cuda() -> str:
    """Test and describe every CUDA device."""
    import torch

    from nonlocal_video.inference.runtimes.device import why_no_cuda, why_unusable

    if not torch.cuda.is_available():
        raise NonlocalVideoError(f"{why_no_cuda()}; the CPU is used")
    lines = [f"driver {_nvidia_driver()}, torch built for {', '.join(torch.cuda.get_arch_list()) or 'unknown devices'}"]
    failed = False
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        what = f"cuda:{index} {properties.name}, capability {properties.major}.{properties.minor}"
        memory = f"{properties.total_memory / 2**30:.1f} GiB"
        unusable = why_unusable(index)
        works, result = (False, unusable) if unusable else _try(partial(_convolution, f"cuda:{index}"))
        failed |= not works
        lines.append(f"{what}, {memory}: {result}")
    if failed:
        raise NonlocalVideoError("\n".join(lines))
    return "\n".join(lines)


def _convolution(device: str) -> str:
    """Run a small 3D convolution on a device, and compare it with float64 on the CPU."""
    import torch

    generator = torch.Generator().manual_seed(0)
    clip = torch.rand(1, 3, 4, 16, 16, generator=generator)
    kernel = torch.rand(8, 3, 3, 3, 3, generator=generator)
    expected = torch.nn.functional.conv3d(clip.double(), kernel.double())
    found = torch.nn.functional.conv3d(clip.to(device), kernel.to(device)).cpu().double()
    difference = float(((found - expected).abs() / expected.abs().max()).max())
    if not difference < 1e-2:  # TF32 is allowed to differ by 1e-3
        raise NonlocalVideoError(f"a 3D convolution gives wrong values: they differ by up to {difference:.1e}")
    return "a 3D convolution gives the right values"


def _nvidia_driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text("utf-8")
    except OSError:
        return "unknown"
    found = re.search(r"Kernel Module.*?(\d+\.[\d.]+)", text)
    return found[1] if found else "unknown"


def _openvino() -> str:
    """Run a small network in OpenVINO, and compare it with PyTorch."""
    import torch

    from nonlocal_video.inference.runtimes.openvino import check_installed, compiled, convert
    from nonlocal_video.inference.runtimes.traceable import trace

    check_installed()
    shape = (1, 3, 4, 8, 8)
    network, clip = torch.nn.Conv3d(3, 4, kernel_size=3).eval(), torch.rand(shape)
    with torch.no_grad():
        expected = network(clip)
    run = compiled(convert(trace(network, shape), shape), num_threads=1)
    difference = float((torch.from_numpy(run(clip.numpy())[0]) - expected).abs().max())
    if not difference < 1e-5:
        raise NonlocalVideoError(f"wrong values: they differ by up to {difference:.1e}")
    return f"openvino {_version('openvino')}, {_compiled_networks()}"


def _compiled_networks() -> str:
    from nonlocal_video.inference.runtimes.compiled_cache import CompiledCache

    cache = CompiledCache()
    if cache.folder is None:
        return "without a folder for compiled networks"
    entries = cache.entries()
    size = sum(path.stat().st_size for path in entries) / 1e6
    return f"compiled networks: {len(entries)} of {size:.0f} MB in {cache.folder}"


def _decoder_choice() -> Table:
    from nonlocal_video.video import decoder_table

    table = Table("container", "codec", "decoder", "why", title="Which decoder takes which file (first fit)")
    for row in decoder_table():
        table.add_row(", ".join(row.containers) or "any", ", ".join(row.codecs) or "any", row.decoder, row.reason)
    return table
