"""Default number of decoding processes and default batch size for a device."""

from __future__ import annotations

import os

import torch

from nonlocal_video.models.card import InputSpec

MAX_WORKERS = 16
MAX_BATCH = 32
_BYTES_PER_PIXEL = 256
"""Assumed bytes of memory per input pixel of a view: three times those of the default network (86 measured), to leave
room for wider networks."""
_FEATURES_PER_PIXEL = 16
"""Values of a ResNet-50's first feature map per input pixel: 64 channels at half the height and width."""


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(device: torch.device) -> int:
    """Return the default number of decoding processes for a network on this device.

    A GPU is faster than many decoding cores: it gets one process per core, up to `MAX_WORKERS`. On the CPU, where the
    network itself needs the cores, there is one process per four cores, at least one.
    """
    return min(MAX_WORKERS, cores() if device.type == "cuda" else max(1, cores() // 4))


def default_batch_size(device: torch.device, spec: InputSpec) -> int:
    """Return the default number of views per forward pass: a power of two on a GPU, 1 on the CPU.

    It uses at most half of the free memory and keeps the first feature map below 2^31 elements. If it still does not
    fit, the engine halves it.

    Args:
        device: Device of the network.
        spec: Input of the network.
    """
    if device.type != "cuda":
        return 1
    pixels = spec.num_frames * spec.crop**2
    free, _ = torch.cuda.mem_get_info(device)
    fitting = min(MAX_BATCH, free // 2 // (pixels * _BYTES_PER_PIXEL), (2**31 - 1) // (pixels * _FEATURES_PER_PIXEL))
    return 1 << (max(1, fitting).bit_length() - 1)
