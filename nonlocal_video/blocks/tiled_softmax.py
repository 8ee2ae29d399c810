"""Softmax attention in tiles, with an online softmax: nothing of the size of N x M in forward or backward.

Milakov and Gimelshein, 2018 (the running maximum and sum); Dao et al., NeurIPS 2022 (the backward pass from the
logarithm of the normaliser). The backward pass makes every tile of weights again instead of keeping it: gradient
checkpointing, tile by tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nonlocal_video.blocks.precision import accumulation_dtype, without_autocast


def tiled_softmax(theta: Tensor, phi: Tensor, g: Tensor, *, scale: float, tile_entries: int) -> Tensor:
    """y_i = sum_j softmax_j(scale * theta_i . phi_j) g_j, any device, type and sizes.

    Args:
        theta: Queries, (B, N, D).
        phi: Keys, (B, M, D).
        g: Values, (B, M, D').
        scale: Factor before the softmax.
        tile_entries: Weights held at a time, all B together (and at least one for each). They are float32 where the
            inputs have 16 bits.

    Returns:
        (B, N, D').
    """
    side = max(1, math.isqrt(tile_entries // max(1, len(theta))))
    return _TiledSoftmax.apply(theta, phi, g, scale, side)


class _TiledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, phi: Tensor, g: Tensor, scale: float, side: int) -> Tensor:
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
                    shrink = (largest - new_largest).exp_()
                    weights = scores.sub_(new_largest).exp_()
                    normaliser = normaliser * shrink + weights.sum(dim=2, keepdim=True)
                    weighted = weighted * shrink + weights @ g[:, keys].to(dtype)
                    largest = new_largest
                y[:, queries] = weighted / normaliser
                log_normaliser[:, queries] = largest + normaliser.log()
        ctx.save_for_backward(theta, phi, g, y, log_normaliser)
        ctx.scale, ctx.side = scale, side
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        theta, phi, g, y, log_normaliser = ctx.saved_tensors
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


def _tiles(length: int, side: int) -> Iterator[slice]:
    return (slice(start, start + side) for start in range(0, length, side))
