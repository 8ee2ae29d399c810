"""The number of views per forward pass above which a feature map is too large for 32-bit indices."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nonlocal_video.models.meta import OperatorMode, meta_copy, run_for_shapes

MAX_ELEMENTS = 2**31 - 1
"""Largest number of elements that a signed 32-bit index reaches, as convolution and pooling kernels of GPUs use."""
_VALUES_PER_PIXEL = 64
"""Assumed values of the largest feature map per input pixel, for networks that do not run on the meta device: 64
channels at full resolution, four times as many as in a ResNet-50 or an Inception-I3D."""

_log = logging.getLogger(__name__)


def views_at_once(network: nn.Module, view_shape: tuple[int, ...]) -> int:
    """Return the largest number of views for which no tensor exceeds `MAX_ELEMENTS`, at least 1.

    Args:
        network: Takes (N, *view_shape).
        view_shape: (3, T, S, S).
    """
    return max(1, MAX_ELEMENTS // largest_tensor(network, view_shape))


def largest_tensor(network: nn.Module, view_shape: tuple[int, ...]) -> int:
    """Return the number of elements of the largest tensor in a forward pass of one view.

    A copy of the network runs on the meta device, which computes shapes only. Tiles of a fused kernel do not count.

    Args:
        network: Takes (N, *view_shape). No other thread may hook it while it is copied.
        view_shape: (3, T, S, S).
    """
    recorder = _LargestTensor()
    try:
        shapes_only = meta_copy(network)
        with torch.no_grad(), _FusedAttention(), recorder:
            shapes_only(torch.empty(1, *view_shape, device="meta"))
    except Exception as error:
        _log.debug("the network does not run without data: %s", error)
        return max(recorder.elements, _VALUES_PER_PIXEL * view_shape[1] * view_shape[2] * view_shape[3])
    return recorder.elements


class _LargestTensor(OperatorMode):
    """Records the largest result of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = run_for_shapes(func, args, kwargs or {})
        for tensor in result if isinstance(result, tuple | list) else (result,):
            # An expanded tensor takes no additional memory.
            if isinstance(tensor, Tensor) and 0 not in tensor.stride():
                self.elements = max(self.elements, tensor.numel())
        return result


class _FusedAttention(TorchFunctionMode):
    """Replaces fused attention, which on the meta device would make the attention matrix."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, _, value = args
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))
