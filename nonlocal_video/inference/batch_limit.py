"""How many views a network may be given at a time before one of its feature maps is too large to be indexed."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from nonlocal_video.models.meta import meta_copy

MAX_ELEMENTS = 2**31 - 1
"""Elements of a tensor that a signed 32-bit index reaches; convolution and pooling kernels of GPUs count with such."""
_VALUES_PER_PIXEL = 64
"""Values of the largest feature map for each input pixel that are assumed of a network that only runs on real data: 64
channels at full size, four times those of a ResNet-50 or an Inception-I3D."""

_log = logging.getLogger(__name__)


def views_at_once(network: nn.Module, view_shape: tuple[int, ...]) -> int:
    """Return the largest number of views with which every tensor stays at or below `MAX_ELEMENTS`, at least 1.

    Args:
        network: Takes (N, *view_shape).
        view_shape: (3, T, S, S).
    """
    return max(1, MAX_ELEMENTS // largest_tensor(network, view_shape))


def largest_tensor(network: nn.Module, view_shape: tuple[int, ...]) -> int:
    """Return the number of elements of the largest tensor on the way of one view through a network.

    A copy of the network runs on the meta device: shapes only, no arithmetic. What a fused kernel computes in tiles is
    not a tensor.

    Args:
        network: Takes (N, *view_shape). While it is copied nobody else may run it with hooks.
        view_shape: (3, T, S, S).
    """
    watch = _Largest()
    try:
        shapes_only = meta_copy(network)
        with torch.no_grad(), _FusedAttention(), watch:
            shapes_only(torch.empty(1, *view_shape, device="meta"))
    except Exception as error:
        _log.debug("the network does not run without data: %s", error)
        return max(watch.elements, _VALUES_PER_PIXEL * view_shape[1] * view_shape[2] * view_shape[3])
    return watch.elements


class _Largest(TorchDispatchMode):
    """Looks at every result of every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            # An expanded tensor takes no more memory than what it was before.
            if isinstance(tensor, Tensor) and 0 not in tensor.stride():
                self.elements = max(self.elements, tensor.numel())
        return result


class _FusedAttention(TorchFunctionMode):
    """Attention without its matrix, as on a GPU; on the meta device PyTorch would make it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, _, value = args
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))
