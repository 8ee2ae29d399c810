"""Cases of `benchmark ops`: kernels alone and whole blocks, ours and as the paper writes them, on seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from nonlocal_video.blocks import NonLocalBlock, NonLocalType, VideoNonLocalBlock
from nonlocal_video.blocks.kernels import concatenation_kernel, dot_product_kernel, softmax_kernel
from nonlocal_video.blocks.nonlocal_block import Rows
from nonlocal_video.blocks.reference import concatenation_reference, dot_product_reference, softmax_reference

Implementation = Literal["naive", "ours"]
_CHECKED_QUERIES = 512  # their results are compared with float64


@dataclass(frozen=True)
class OpCase:
    """A kernel on (N,) positions with D = D' = `channels`, or a block on an input (C, *`size`) of C = `channels`.

    There are as many keys as positions unless `sub_sample`.
    """

    kernel: NonLocalType
    channels: int
    size: tuple[int, ...]
    sub_sample: bool = False

    @property
    def is_block(self) -> bool:
        """Whether the case is a whole block."""
        return len(self.size) > 1

    @property
    def num_positions(self) -> int:
        """Number N of positions."""
        return math.prod(self.size)

    @property
    def num_keys(self) -> int:
        """Number M of keys."""
        return self.num_positions // 4 if self.sub_sample else self.num_positions

    @property
    def matrix_bytes(self) -> int:
        """Size of the N x M matrix in float32."""
        return 4 * self.num_positions * self.num_keys

    def smaller(self, num_positions: int) -> OpCase:
        """Return the same case with about this many positions, or itself if it has no more."""
        if self.num_positions <= num_positions:
            return self
        side = math.isqrt(num_positions // 2)
        return replace(self, size=(2, side, side) if self.is_block else (num_positions,))


def build(case: OpCase, implementation: Implementation) -> Callable[[], Tensor]:
    """Return a function that runs a case once, with its inputs prepared."""
    if case.is_block:
        block, x = _block_and_input(case, implementation)
        return lambda: block(x)
    theta, phi, g, weight = _kernel_inputs(case)
    return lambda: _apply(case.kernel, implementation, theta, phi, g, weight, scale=case.channels**-0.5)


def error(case: OpCase, implementation: Implementation) -> float:
    """Return the largest difference from the naive formula in float64, over the largest value (less x for blocks)."""
    with torch.no_grad():
        if case.is_block:
            block, x = _block_and_input(case, implementation)
            exact_block, _ = _block_and_input(case, "naive")
            exact = exact_block.double()(x.double()) - x
            return float((block(x) - x - exact).abs().max() / exact.abs().max())
        theta, phi, g, weight = _kernel_inputs(case)
        scale = case.channels**-0.5
        some = torch.linspace(0, case.num_positions - 1, min(_CHECKED_QUERIES, case.num_positions)).long()
        wide = (tensor.double() for tensor in (theta[:, some], phi, g, weight))
        exact = _apply(case.kernel, "naive", *wide, scale=scale)
        result = _apply(case.kernel, implementation, theta, phi, g, weight, scale=scale)[:, some]
        return float((result - exact).abs().max() / exact.abs().max())


@dataclass(frozen=True)
class _Naive:
    """Variant of a block that runs the naive formula."""

    kernel_name: NonLocalType
    scale: float
    weight: Tensor

    def kernel(self, rows: Rows, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return _apply(self.kernel_name, "naive", theta, phi, g, self.weight.to(g.dtype), scale=self.scale)

    def rows(self, rows: Rows, theta: Tensor, phi: Tensor) -> Tensor:
        return rows(theta, phi)


def _apply(
    kernel: NonLocalType,
    implementation: Implementation,
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    weight: Tensor,
    *,
    scale: float,
) -> Tensor:
    if kernel == "dot_product":
        return (dot_product_reference if implementation == "naive" else dot_product_kernel)(theta, phi, g)
    if kernel == "concatenation":
        return (concatenation_reference if implementation == "naive" else concatenation_kernel)(theta, phi, g, weight)
    return (softmax_reference if implementation == "naive" else softmax_kernel)(theta, phi, g, scale=scale)


def _kernel_inputs(case: OpCase) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return theta, phi, g, (1, N, D) each, transposed views as a block's grids give them; and w, (2 D,)."""
    generator = torch.Generator().manual_seed(0)
    depth = case.channels
    theta, phi, g = (
        torch.randn(1, depth, length, generator=generator).transpose(1, 2)
        for length in (case.num_positions, case.num_keys, case.num_keys)
    )
    return theta, phi, g, torch.randn(2 * depth, generator=generator) * depth**-0.5


def _block_and_input(case: OpCase, implementation: Implementation) -> tuple[NonLocalBlock, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = VideoNonLocalBlock(
            case.channels, sub_sample=case.sub_sample, bn_layer=False, nonlocal_type=case.kernel
        ).eval()
        for conv in (block.g, block.theta, block.phi, block.W):
            if conv is not None:  # a new block adds (nearly) 0
                nn.init.normal_(conv.weight, std=case.channels**-0.5)
        # Small enough for a Gaussian that is not one-hot: x_i . x_i has the size of sqrt(C).
        x = torch.randn(1, case.channels, *case.size) * case.channels**-0.25
    if implementation == "naive":
        weight = torch.empty(0) if block.concat_project is None else block.concat_project.weight[0].detach()
        block.variant = _Naive(case.kernel, block.scale, weight)
    return block, x
