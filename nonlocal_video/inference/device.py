"""Which device the network runs on, and what runs it there."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.openvino_network import check_installed

Runtime = Literal["torch", "openvino"]
"""PyTorch on any device, or OpenVINO on the CPU."""


def choose_device(name: str, *, runtime: Runtime = "torch") -> torch.device:
    """`auto` is the first CUDA device that the runtime can use, else the CPU; anything named explicitly must exist.

    Raises:
        UsageError: The device is not one of auto, cpu, cuda, cuda:N, or is not on this machine, or `check_runtime`
            refuses it.
    """
    check_runtime(runtime, name)
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() and runtime == "torch" else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index is not None):
        raise UsageError(f"device = {name!r} should be auto, cpu, cuda or cuda:N.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"device = {name!r}, but {why_no_cuda()}. Use --device auto or cpu.")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"device = {name!r}, but this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}.")
        return torch.device("cuda", device.index or 0)
    return device


def check_runtime(runtime: Runtime, device: str) -> None:
    """Whether a runtime is here and for such a device; whether the device is here is another question.

    Raises:
        UsageError: It is unknown or not installed, or it does not run on the device.
    """
    if runtime not in get_args(Runtime):
        raise UsageError(f"runtime = {runtime!r} should be one of {', '.join(get_args(Runtime))}.")
    if runtime == "openvino":
        check_installed()
        if device.partition(":")[0] == "cuda":
            raise UsageError(
                f"device = {device!r}, but runtime = 'openvino' runs on the CPU. Use --device auto or cpu, or "
                f"--runtime torch."
            )


def in_words(device: torch.device | str, runtime: Runtime) -> str:
    """Like `cuda:0`, `cpu` or `cpu (openvino)`."""
    return str(device) if runtime == "torch" else f"{device} ({runtime})"


def why_no_cuda() -> str:
    """One clause saying why no CUDA device is used."""
    if torch.version.cuda is None:
        return f"the installed torch {torch.__version__} was built without CUDA"
    return f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable NVIDIA GPU and driver"
