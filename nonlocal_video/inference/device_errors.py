"""What PyTorch raises when a device fails or runs out of memory, in this project's errors. The one place that tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from nonlocal_video.errors import DeviceError, VideoError

Failure = Literal["out_of_memory", "device"]

_NO_MEMORY = (  # of CUDA, cuDNN, cuBLAS and of PyTorch's own allocator on the CPU, which have no exception of their own
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",
    "not enough memory",
)
_DEAD = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED", "HIP error")


def failure_of(error: BaseException) -> Failure | None:
    """Return whether memory ran out or the device failed; None for any other error.

    After an illegal access or a fault of the hardware every further call on the device fails (`AcceleratorError`): told
    by the exception, whatever the device. After it ran out of memory, a device keeps working.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "out_of_memory"
    if isinstance(error, RuntimeError):
        said = str(error)
        if any(words in said for words in _NO_MEMORY):
            return "out_of_memory"
        if isinstance(error, torch.AcceleratorError) or any(words in said for words in _DEAD):
            return "device"
    return None


def no_memory(device: torch.device | str, needed: str) -> VideoError:
    """Return the error of a clip for which the device has no room.

    Args:
        device: That ran out of memory.
        needed: What there was no room for.
    """
    return VideoError("out_of_memory", f"{device} has no room for {needed}; use --fast or --device cpu.")


def device_failed(device: torch.device | str, error: BaseException) -> DeviceError:
    """Return the error that ends a run."""
    lines = str(error).strip().splitlines()
    return DeviceError(
        f"The device {device} failed: {lines[0] if lines else type(error).__name__}. What was not done has no row. "
        f"Start the same command with --resume; if it fails again, `nonlocal-video doctor` says more, or take another "
        f"--device."
    )


@contextmanager
def translated(device: torch.device | str, needed: str) -> Iterator[None]:
    """Turn PyTorch's errors of memory and device inside the block into this project's.

    Raises:
        VideoError: `out_of_memory`.
        DeviceError: The device has failed.
    """
    try:
        yield
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        error.__traceback__ = None  # whose frames would keep the tensors of the failed step alive
        raise (no_memory(device, needed) if failure == "out_of_memory" else device_failed(device, error)) from None
