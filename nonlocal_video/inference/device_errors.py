"""Translation of device and memory errors of PyTorch and OpenVINO into those of this project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from nonlocal_video.errors import DeviceError, VideoError

Failure = Literal["out_of_memory", "device"]

_NO_MEMORY = (  # CUDA, cuDNN, cuBLAS, PyTorch's CPU allocator and OpenVINO, which have no exception type
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",  # up to cuDNN 8
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    # How PyTorch ends a convolution after the workspace of every algorithm was too large. It drops the allocator's
    # errors on the way; the other cause, a GPU that cuDNN does not support, fails for a single view as well.
    "was unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",  # its handle needs memory beside PyTorch's allocator
    "can't allocate memory",
    "not enough memory",
    "Failed to allocate",  # OpenVINO
)
_DEAD = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED", "HIP error")


def failure_of(error: BaseException) -> Failure | None:
    """Return whether memory ran out or the device failed; None for any other error.

    After an illegal access or a hardware fault, every further call on the device fails (`AcceleratorError`). After it
    ran out of memory, a device keeps working.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "out_of_memory"
    if isinstance(error, RuntimeError):
        message = str(error)
        if any(words in message for words in _NO_MEMORY):
            return "out_of_memory"
        if isinstance(error, torch.AcceleratorError) or any(words in message for words in _DEAD):
            return "device"
    return None


def no_memory(device: torch.device | str, needed: str) -> VideoError:
    """Return the error for a clip that does not fit into the memory of a device.

    Args:
        device: Device that ran out of memory.
        needed: What did not fit, for the message.
    """
    return VideoError("out_of_memory", f"{device} has no room for {needed}; use --fast or --device cpu.")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def device_failed(device: torch.device | str, error: BaseException) -> DeviceError:
    """Return the error that ends a run after a device failed."""
    return DeviceError(
        f"The device {device} failed: {first_line(error).rstrip('.')}. If it fails again, run `nonlocal-video doctor` "
        f"or use another --device."
    )


@contextmanager
def translated(device: torch.device | str, needed: str) -> Iterator[None]:
    """Translate memory and device errors of PyTorch inside the block.

    Args:
        device: Device that runs the block.
        needed: What needs the memory, for the message.

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
        error.__traceback__ = None  # its frames would keep the tensors of the failed step alive
        raise (no_memory(device, needed) if failure == "out_of_memory" else device_failed(device, error)) from None
