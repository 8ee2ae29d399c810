"""What the kernels need for second derivatives and for `torch.func` (grad, vmap, jvp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def under_transform() -> bool:
    """Return whether a transform of `torch.func` runs, in which PyTorch's fused kernels have no derivatives.

    `torch.autograd.Function.apply` asks the same function; without it all kernels but the fused ones still work.
    """
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return active is not None and bool(active())


def differentiable_once(tensors: Sequence[Tensor], words: str) -> list[Tensor]:
    """Return the same tensors, whose gradients say `words` when they are themselves differentiated."""
    return [_Once.apply(tensor, words) if tensor.requires_grad else tensor for tensor in tensors]


def batch_as_sets(batch_size: int, in_dims: Sequence[int | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Make what `torch.vmap` maps over more of the independent sets (B, ...): (V * B, ...) of each tensor."""
    return [
        (tensor.expand(batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, words: str) -> Tensor:
        ctx.words = words
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Refused.apply(grad, ctx.words) if torch.is_grad_enabled() else grad, None


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, words: str) -> Tensor:
        ctx.words = words
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        raise RuntimeError(ctx.words)  # as PyTorch's own functions that are differentiable once
