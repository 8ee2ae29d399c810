"""Softmax attention in tiles, with an online softmax: no tensor of size N x M in forward or backward.

Milakov and Gimelshein, 2018 (the running maximum and sum); Dao et al., NeurIPS 2022 (the backward pass from the
logarithm of the normaliser). The backward pass recomputes each tile of weights instead of keeping it: gradient
checkpointing, tile by tile. Gradients that are themselves differentiated (`create_graph=True`, `torch.func`) are the
exception: autograd keeps their weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nonlocal_video.blocks.derivatives import batch_as_sets
from nonlocal_video.blocks.precision import accumulation_dtype, without_autocast


def tiled_softmax(theta: Tensor, phi: Tensor, g: Tensor, *, scale: float, tile_entries: int) -> Tensor:
    """Compute y_i = sum_j softmax_j(scale * theta_i . phi_j) g_j on any device, with any dtype and sizes.

    Args:
        theta: Queries, (B, N, D).
        phi: Keys, (B, M, D).
        g: Values, (B, M, D').
        scale: Factor before the softmax.
        tile_entries: Number of weights held at a time, for all B together (and at least one for each). They are
            float32 for 16-bit inputs.

    Returns:
        y, (B, N, D').
    """
    side = max(1, math.isqrt(tile_entries // max(1, len(theta))))
    return _TiledSoftmax.apply(theta, phi, g, scale, side)[0]


class _TiledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(theta: Tensor, phi: Tensor, g: Tensor, scale: float, side: int) -> tuple[Tensor, Tensor]:
        dtype = accumulation_dtype(theta)
        y = theta.new_empty(*theta.shape[:2], g.shape[2])
        log_normaliser = theta.new_empty(*theta.shape[:2], 1, dtype=dtype)
        with without_autocast(theta):
            for queries in _tiles(theta.shape[1], side):
                query = theta[:, queries].to(dtype) * scale  # (B, q, D)
                largest = query.new_full((*query.shape[:2], 1), -math.inf)
                normaliser = torch.zeros_like(largest)
                weighted = query.new_zeros(*query.shape[:2], g.shape[2])
                for keys in _tiles(phi.shape[1], side):
                    scores = query @ phi[:, keys].to(dtype).transpose(1, 2)  # (B, q, k)
                    new_largest = torch.maximum(largest, scores.amax(dim=2, keepdim=True))
                    # If all scores so far are -inf, their differences are NaN; their weights should be 0.
                    shift = new_largest.masked_fill(new_largest == -math.inf, 0)
                    shrink = (largest - shift).exp_()
                    weights = scores.sub_(shift).exp_()
                    normaliser = normaliser * shrink + weights.sum(dim=2, keepdim=True)
                    weighted = weighted * shrink + weights @ g[:, keys].to(dtype)
                    largest = new_largest
                y[:, queries] = weighted / normaliser
                log_normaliser[:, queries] = largest + normaliser.log()
        return y, log_normaliser

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        theta, phi, g, ctx.scale, ctx.side = inputs
        y, log_normaliser = output
        ctx.mark_non_differentiable(log_normaliser)
        ctx.save_for_backward(theta, phi, g, y, log_normaliser)
        ctx.save_for_forward(theta, phi, g)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        theta, phi, g, y, log_normaliser = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradients will be differentiated, or may be
            return *_differentiable_gradients(theta, phi, g, grad_y, ctx.scale, ctx.side), None, None
        dtype = log_normaliser.dtype
        grad_theta, grad_phi, grad_g = (torch.zeros_like(tensor, dtype=dtype) for tensor in (theta, phi, g))
        with without_autocast(theta):
            for queries in _tiles(theta.shape[1], ctx.side):
                query, grad = theta[:, queries].to(dtype) * ctx.scale, grad_y[:, queries].to(dtype)
                mean_grad = (grad * y[:, queries].to(dtype)).sum(dim=2, keepdim=True)
                for keys in _tiles(phi.shape[1], ctx.side):
                    key = phi[:, keys].to(dtype)
                    weights = (query @ key.transpose(1, 2)).sub_(log_normaliser[:, queries]).exp_()  # (B, q, k)
                    grad_g[:, keys] += weights.transpose(1, 2) @ grad
                    grad_scores = (grad @ g[:, keys].to(dtype).transpose(1, 2)).sub_(mean_grad).mul_(weights)
                    grad_theta[:, queries] += ctx.scale * (grad_scores @ key)
                    grad_phi[:, keys] += grad_scores.transpose(1, 2) @ query
        return grad_theta.to(theta.dtype), grad_phi.to(phi.dtype), grad_g.to(g.dtype), None, None

    @staticmethod
    def jvp(ctx: Any, theta_t: Tensor | None, phi_t: Tensor | None, g_t: Tensor | None, *_: Any) -> tuple[Tensor, None]:
        theta, phi, g = (tensor.to(accumulation_dtype(tensor)) for tensor in ctx.saved_tensors)
        parts = []
        with without_autocast(theta):
            for queries in _tiles(theta.shape[1], ctx.side):
                query = theta[:, queries] * ctx.scale
                weights = torch.softmax(query @ phi.transpose(1, 2), dim=2)  # (B, q, M)
                scores_t = torch.zeros_like(weights)
                if theta_t is not None:
                    scores_t = scores_t + (theta_t[:, queries].to(query.dtype) * ctx.scale) @ phi.transpose(1, 2)
                if phi_t is not None:
                    scores_t = scores_t + query @ phi_t.to(query.dtype).transpose(1, 2)
                weights_t = weights * (scores_t - (weights * scores_t).sum(dim=2, keepdim=True))
                part = weights_t @ g
                parts.append(part if g_t is None else part + weights @ g_t.to(query.dtype))
        return torch.cat(parts, dim=1).to(ctx.saved_tensors[0].dtype), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], theta: Tensor, phi: Tensor, g: Tensor, scale: float, side: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        y, log_normaliser = _TiledSoftmax.apply(
            *batch_as_sets(info.batch_size, in_dims[:3], (theta, phi, g)), scale, side
        )
        size = info.batch_size
        return (y.unflatten(0, (size, -1)), log_normaliser.unflatten(0, (size, -1))), (0, 0)


def _differentiable_gradients(
    theta: Tensor, phi: Tensor, g: Tensor, grad_y: Tensor, scale: float, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of theta, phi and g by operations that autograd follows, which keep N x M weights."""
    dtype = accumulation_dtype(theta)
    phi_in, g_in = phi.to(dtype), g.to(dtype)
    grad_theta, grad_phi, grad_g = [], torch.zeros_like(phi_in), torch.zeros_like(g_in)
    with without_autocast(theta):
        for queries in _tiles(theta.shape[1], side):
            query, grad = theta[:, queries].to(dtype) * scale, grad_y[:, queries].to(dtype)
            weights = torch.softmax(query @ phi_in.transpose(1, 2), dim=2)  # (B, q, M)
            grad_weights = grad @ g_in.transpose(1, 2)
            grad_scores = weights * (grad_weights - (weights * grad_weights).sum(dim=2, keepdim=True))
            grad_theta.append(scale * (grad_scores @ phi_in))
            grad_phi = grad_phi + grad_scores.transpose(1, 2) @ query
            grad_g = grad_g + weights.transpose(1, 2) @ grad
    return torch.cat(grad_theta, dim=1).to(theta.dtype), grad_phi.to(phi.dtype), grad_g.to(g.dtype)


def _tiles(length: int, side: int) -> Iterator[slice]:
    return (slice(start, start + side) for start in range(0, length, side))
