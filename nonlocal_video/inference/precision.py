"""The arithmetic in which PyTorch runs the network. Weights and results are float32 in all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, get_args

import torch

from nonlocal_video.errors import UsageError

Precision = Literal["float32", "tf32", "bf16"]
"""Bits that convolutions and matrix products keep of what they multiply: 24, 11 (CUDA devices) or 8."""

_TENSOR_CORES = (8, 0)
"""First compute capability with TF32 and bfloat16."""
_switches = threading.RLock()


def check_precision(precision: Precision, device: torch.device | str, *, runtime: str = "torch") -> None:
    """Check that a precision is one, and one of this device and runtime.

    Args:
        precision: To compute in.
        device: That computes; `auto` and `cuda` are taken for devices that can.
        runtime: That computes.

    Raises:
        UsageError: It is not.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"precision = {precision!r} should be one of {', '.join(get_args(Precision))}.")
    if precision == "float32":
        return
    if runtime != "torch":
        raise UsageError(
            f"precision = {precision!r}, but runtime = {runtime!r} computes in float32. Use --precision float32, or "
            f"--runtime torch."
        )
    kind = str(device).partition(":")[0]
    if precision == "tf32" and kind == "cpu":
        raise UsageError(
            "precision = 'tf32' is arithmetic of NVIDIA GPUs, and the device is the CPU. Use --precision float32 or "
            "bf16."
        )
    if isinstance(device, torch.device) and kind == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < _TENSOR_CORES:
            raise UsageError(
                f"precision = {precision!r}, but {torch.cuda.get_device_name(device)} has compute capability "
                f"{'.'.join(map(str, capability))}, and {precision} needs {'.'.join(map(str, _TENSOR_CORES))}. Use "
                f"--precision float32."
            )


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let convolutions and matrix products inside the block compute in this precision.

    float32 has to be asked for: by default PyTorch lets cuDNN's convolutions round their inputs to TF32, and a caller
    may have switched autocast on. TF32 is a switch of the whole process, so threads that compute on CUDA devices take
    turns.
    """
    if device.type == "cuda":
        with _switches, _tf32(precision == "tf32"), _autocast(precision, device):
            yield
    else:
        with _autocast(precision, device):
            yield


@contextmanager
def turn(device: torch.device) -> Iterator[None]:
    """Hold the switches of `arithmetic`; to be taken before any other lock."""
    with _switches if device.type == "cuda" else nullcontext():
        yield


def _autocast(precision: Precision, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, matmul
