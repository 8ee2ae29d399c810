"""The precision in which the kernels accumulate."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_HALVES = (torch.float16, torch.bfloat16)


def accumulation_dtype(tensor: Tensor) -> torch.dtype:
    """Return float32 for the 16-bit types, else the tensor's own type."""
    return torch.float32 if tensor.dtype in _HALVES else tensor.dtype


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which products of float32 matrices stay float32, even under the caller's autocast."""
    device = tensor.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
