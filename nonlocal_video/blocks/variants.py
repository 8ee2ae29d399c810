"""Variants of a block that trade exactness or time for something else, made from any block, new or trained.

    block = sparse_attention(VideoNonLocalBlock(512), top_k=64)

Each function copies a `NonLocalBlock` or `VideoNonLocalBlock` with its weights and changes how the copy computes; the
given block does not change. The copy has the same interface, dimension and mode. docs/kernels.md has the errors and
times of all variants against the full block, on the features of the default model.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.checkpoint import checkpoint

from nonlocal_video.blocks.config import SOFTMAX_TYPES
from nonlocal_video.blocks.derivatives import differentiable_once, under_transform
from nonlocal_video.blocks.kernels import memory_efficient_softmax_kernel, query_chunks
from nonlocal_video.blocks.nonlocal_block import NonLocalBlock, Rows

Block = TypeVar("Block", bound=NonLocalBlock)
_NO_SECOND_DERIVATIVE = (
    "A sparse block has no second derivative by create_graph=True; torch.func.grad and torch.func.hessian give it."
)


def memory_efficient(block: Block) -> Block:
    """Return a copy of a block whose memory is bounded on any device, with any dtype and sizes, also in training.

    The softmax kernels work in tiles with an online softmax, and the backward pass recomputes the tiles. The result
    equals that of the full block up to rounding (float32: 1e-6 of the largest value). Dot product and concatenation
    never hold the N x M matrix, so they stay as they are.

    Raises:
        ValueError: If the block is sparse (which works in chunks) or memory-efficient already.

    Example:
        >>> block = NonLocalBlock(64)
        >>> x = torch.randn(1, 64, 8, 8)
        >>> torch.allclose(memory_efficient(block)(x), block(x))
        True
    """
    variant = _copied(block)
    if block.config.nonlocal_type in SOFTMAX_TYPES:
        variant.variant = _Tiled(block.scale)
    return variant


def sparse_attention(block: Block, top_k: float) -> Block:
    """Return a copy of a block in which each query keeps only its `top_k` largest weights (by magnitude).

    All other weights are exactly 0. The softmax runs over the kept keys, so a row still sums to 1; the other kernels
    keep their 1/M. With `top_k` at least M the result equals that of the full block up to rounding. For softmax kernels
    it is off by at most 2 (1 - p) max |g|, where p is the share of the softmax on the kept keys. All products
    theta . phi are still computed, in chunks: this saves memory, not time.

    Args:
        block: Any non-local block.
        top_k: A number of keys, or a share of a query's keys as a float between 0 and 1 (rounded down, at least one).

    Raises:
        ValueError: If `top_k` is neither, or the block is sparse or memory-efficient already.

    Example:
        >>> sparse = sparse_attention(NonLocalBlock(64), top_k=4)
        >>> _, weights = sparse(torch.randn(1, 64, 8, 8), return_nl_map=True)
        >>> int((weights > 0).sum(dim=2).max())
        4
    """
    if not 0 < top_k < 1 and not (top_k >= 1 and float(top_k).is_integer()):
        raise ValueError(f"{top_k = } should be a whole number of at least 1, or a share between 0 and 1.")
    variant = _copied(block)
    variant.variant = _TopKeys(top_k, renormalise=block.config.nonlocal_type in SOFTMAX_TYPES)
    return variant


def factorized_attention(block: Block, rank: int) -> Block:
    """Return a copy of a block whose theta and phi have `rank` channels instead of `inter_channels`.

    Each weight then takes fewer products. theta_i . phi_j = x_i^T A x_j (x with a 1 for the biases) has a matrix A of
    rank at most `inter_channels`; the new theta and phi are its best approximation of that rank, from the singular
    value decomposition. With `rank = inter_channels` the result equals that of the full block up to rounding, provided
    nothing is pooled after phi: a maximum over positions is not the same in other channels. With
    pool_order="conv_pool" and sub_sample=True the result is therefore only a starting point for training.

    Raises:
        ValueError: If `rank` is not between 1 and `inter_channels`, or the block has no such product: the Gaussian
            has no theta and phi, and the concatenation needs one number of each already.

    Example:
        >>> factorized_attention(NonLocalBlock(64), rank=8).get_block_info()["embedding_channels"]
        8
    """
    if block.config.nonlocal_type not in ("embedded_gaussian", "dot_product"):
        raise ValueError(
            f"The block's nonlocal_type = {block.config.nonlocal_type!r} has no product of theta and phi to factorise; "
            "use 'embedded_gaussian' or 'dot_product'."
        )
    assert block.theta is not None
    assert block.phi is not None
    channels = block.theta.out_channels
    if not 1 <= rank <= channels:
        raise ValueError(f"{rank = } should be from 1 to {channels}, the channels of theta and phi.")
    theta, phi = (_affine(conv).double() for conv in (block.theta, block.phi))  # (D, C + 1)
    theta_basis, theta_triangle = torch.linalg.qr(theta.T)
    phi_basis, phi_triangle = torch.linalg.qr(phi.T)
    left, values, right = torch.linalg.svd(theta_triangle @ phi_triangle.T)
    root = values[:rank].sqrt()
    variant = copy.deepcopy(block)
    variant.factorized_rank = rank
    variant.theta = _resized(block.theta, root[:, None] * (theta_basis @ left[:, :rank]).T)
    variant.phi = _resized(block.phi, root[:, None] * (phi_basis @ right[:rank].T).T)
    return variant


@dataclass(frozen=True)
class _Tiled:
    scale: float

    def kernel(self, rows: Rows, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return memory_efficient_softmax_kernel(theta, phi, g, scale=self.scale)

    def rows(self, rows: Rows, theta: Tensor, phi: Tensor) -> Tensor:
        return rows(theta, phi)

    def __str__(self) -> str:
        return "memory_efficient"


@dataclass(frozen=True)
class _TopKeys:
    top_k: float
    renormalise: bool

    def kernel(self, rows: Rows, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        if under_transform():  # checkpoints and embedding bags cannot be transformed: hold the matrix
            return torch.cat([self.rows(rows, chunk, phi) @ g for chunk in query_chunks(theta, phi.shape[1])], dim=1)
        if torch.is_grad_enabled():
            theta, phi, g = differentiable_once((theta, phi, g), _NO_SECOND_DERIVATIVE)

        def attend(chunk: Tensor, phi: Tensor, g: Tensor) -> Tensor:
            weights, keys = self._kept(rows(chunk, phi))  # (S, q, k)
            first = g.shape[1] * torch.arange(len(g), device=g.device)[:, None, None]
            # Weighted sums of selected rows, without a copy of the k rows of every query.
            sums = F.embedding_bag(
                (keys + first).flatten(0, 1),
                g.flatten(0, 1),
                per_sample_weights=weights.to(g.dtype).flatten(0, 1),
                mode="sum",
            )
            return sums.unflatten(0, weights.shape[:2])

        # With checkpoints, or autograd would keep the rows of every chunk: the whole matrix.
        chunks = (
            checkpoint(attend, chunk, phi, g, use_reentrant=False, preserve_rng_state=False)
            if torch.is_grad_enabled()
            else attend(chunk, phi, g)
            for chunk in query_chunks(theta, phi.shape[1])
        )
        return torch.cat(list(chunks), dim=1)

    def rows(self, rows: Rows, theta: Tensor, phi: Tensor) -> Tensor:
        full = rows(theta, phi)
        weights, keys = self._kept(full)
        return torch.zeros_like(full).scatter(2, keys, weights)

    def _kept(self, full: Tensor) -> tuple[Tensor, Tensor]:
        """Return the kept weights of rows (S, Q, M) and their keys, (S, Q, k) each."""
        num_keys = full.shape[2]
        num_kept = max(1, int(self.top_k * num_keys)) if self.top_k < 1 else min(int(self.top_k), num_keys)
        keys = full.detach().abs().topk(num_kept, dim=2, sorted=False).indices
        weights = full.gather(2, keys)
        return (weights / weights.sum(dim=2, keepdim=True) if self.renormalise else weights), keys

    def __str__(self) -> str:
        return f"sparse_attention(top_k={self.top_k})"


def _copied(block: Block) -> Block:
    if block.variant is not None:
        raise ValueError(f"The block is {block.variant} already; make the variant from the full block.")
    return copy.deepcopy(block)


def _affine(conv: _ConvNd) -> Tensor:
    """Return a 1x1 convolution as one matrix on (x, 1): (D, C + 1)."""
    weight = conv.weight.detach().flatten(1)
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach()
    return torch.cat([weight, bias[:, None]], dim=1)


def _resized(conv: _ConvNd, affine: Tensor) -> _ConvNd:
    """Return a 1x1 convolution like `conv` that applies (D', C + 1), with a bias only if `conv` has one."""
    resized = copy.deepcopy(conv)
    resized.out_channels = len(affine)
    weight = affine[:, :-1].to(conv.weight).reshape(len(affine), *conv.weight.shape[1:])
    resized.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    if conv.bias is not None:
        resized.bias = nn.Parameter(affine[:, -1].to(conv.bias), requires_grad=conv.bias.requires_grad)
    return resized
