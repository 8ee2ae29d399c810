"""How many decoding processes, and how many views at a time, suit a device where the user does not say."""

from __future__ import annotations

import os

import torch

from nonlocal_video.models.card import InputSpec

MAX_WORKERS = 16
MAX_BATCH = 32
_BYTES_PER_PIXEL = 256
"""Bytes of memory for each pixel of a view's input: three times what the default network takes (86 measured), to
leave room for wider networks."""
_FEATURES_PER_PIXEL = 16
"""Values of a ResNet-50's first feature map for each input pixel: 64 channels at half the height and width."""


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(device: torch.device) -> int:
    """Return the number of decoding processes beside a network on this device.

    A GPU answers faster than many cores decode: it gets one a core, up to `MAX_WORKERS`. On the CPU the network takes
    the cores itself; a core in four decodes, at least one.
    """
    return min(MAX_WORKERS, cores() if device.type == "cuda" else max(1, cores() // 4))


def default_batch_size(device: torch.device, spec: InputSpec) -> int:
    """Return the number of views in one forward pass: a power of two on a GPU, 1 on the CPU.

    It takes at most half of the memory that is free, and keeps the first feature map below 2^31 elements. Where it does
    not fit all the same, the engine halves it.

    Args:
        device: That computes.
        spec: The network's input.
    """
    if device.type != "cuda":
        return 1
    pixels = spec.num_frames * spec.crop**2
    free, _ = torch.cuda.mem_get_info(device)
    fitting = min(MAX_BATCH, free // 2 // (pixels * _BYTES_PER_PIXEL), (2**31 - 1) // (pixels * _FEATURES_PER_PIXEL))
    return 1 << (max(1, fitting).bit_length() - 1)
