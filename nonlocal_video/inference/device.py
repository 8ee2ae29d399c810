"""Which device the network runs on."""

from __future__ import annotations

import torch

from nonlocal_video.errors import UsageError


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU; anything named explicitly must exist.

    Raises:
        UsageError: The device is not one of auto, cpu, cuda, cuda:N, or is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device = {name!r} should be auto, cpu, cuda or cuda:N.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"device = {name!r}, but {why_no_cuda()}. Use --device auto or cpu.")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"device = {name!r}, but this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}.")
        return torch.device("cuda", device.index or 0)
    return device


def why_no_cuda() -> str:
    """One clause saying why no CUDA device is used."""
    if torch.version.cuda is None:
        return f"the installed torch {torch.__version__} was built without CUDA"
    return f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable NVIDIA GPU and driver"
