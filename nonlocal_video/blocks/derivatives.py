"""Support for second derivatives and for `torch.func` (grad, vmap, jvp) in the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def under_transform() -> bool:
    """Return whether a `torch.func` transform is active, in which PyTorch's fused kernels have no derivatives.

    `torch.autograd.Function.apply` asks the same private function of PyTorch. If a later version drops it, only the
    fused kernels under a transform stop working.
    """
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return active is not None and bool(active())


def differentiable_once(tensors: Sequence[Tensor], message: str) -> list[Tensor]:
    """Return the same tensors, and raise a RuntimeError with `message` when their gradients are differentiated."""
    return [_Once.apply(tensor, message) if tensor.requires_grad else tensor for tensor in tensors]


def batch_as_sets(batch_size: int, in_dims: Sequence[int | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Merge the axis that `torch.vmap` maps over into the batch of independent sets: (V * B, ...) for each tensor."""
    return [
        (tensor.expand(batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, message: str) -> Tensor:
        ctx.message = message
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Refused.apply(grad, ctx.message) if torch.is_grad_enabled() else grad, None


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, message: str) -> Tensor:
        ctx.message = message
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        raise RuntimeError(ctx.message)  # the same type as PyTorch's own once-differentiable functions raise
