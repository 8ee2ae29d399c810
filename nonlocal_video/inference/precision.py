"""Numeric precision in which the network runs. Weights and results are always float32."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, get_args

import torch

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.runtimes.openvino import has_bfloat16

Precision = Literal["float32", "tf32", "bf16"]
"""Precision of the factors in convolutions and matrix products: 24, 11 (CUDA devices only) or 8 bits."""

_TENSOR_CORES = (8, 0)
"""Lowest compute capability with TF32 and bfloat16."""
_switches = threading.RLock()


def check_precision(precision: Precision, device: torch.device | str, *, runtime: str = "auto") -> None:
    """Check that a precision exists and works with a device and runtime.

    Args:
        precision: Precision to check.
        device: Device of the network; `auto` and `cuda` are assumed to support it.
        runtime: Runtime of the network.

    Raises:
        UsageError: The precision is unknown or not supported.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"precision = {precision!r} should be one of {', '.join(get_args(Precision))}.")
    if precision == "float32":
        return
    kind = str(device).partition(":")[0]
    if runtime == "openvino" and precision == "bf16" and not has_bfloat16():
        raise UsageError(
            "precision = 'bf16', but OpenVINO has no bfloat16 on this CPU. Use --precision float32, or --runtime torch."
        )
    if precision == "tf32" and (kind == "cpu" or runtime == "openvino"):
        raise UsageError(
            "precision = 'tf32' needs an NVIDIA GPU, and the device is the CPU. Use --precision float32 or bf16."
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
    """Run convolutions and matrix products inside the block in this precision.

    float32 has to be set too: by default, PyTorch lets cuDNN's convolutions round their inputs to TF32, and a caller
    may have enabled autocast. TF32 is a switch of the whole process, so threads on CUDA devices take turns.
    """
    if device.type == "cuda":
        with _switches, _tf32(precision == "tf32"), _autocast(precision, device):
            yield
    else:
        with _autocast(precision, device):
            yield


@contextmanager
def turn(device: torch.device) -> Iterator[None]:
    """Hold the lock of the switches of `arithmetic`; acquire it before any other lock."""
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
