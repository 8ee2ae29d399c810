"""The tutorial's two classes: its names and arguments, on top of this package's functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from nonlocal_video.analysis.block_advice import BlockAdvice, BlockLimits, advise_blocks
from nonlocal_video.analysis.complexity import BlockComplexity, compare_blocks
from nonlocal_video.analysis.effective_receptive_field import FieldComparison, compare_fields
from nonlocal_video.analysis.networks import nonlocal_blocks
from nonlocal_video.analysis.patterns import AttentionPattern, network_patterns
from nonlocal_video.analysis.receptive_field import theoretical_fields
from nonlocal_video.analysis.speed import Speed, measure_speed
from nonlocal_video.blocks import NonLocalBlock, NonLocalType, variants
from nonlocal_video.blocks.schedule import ProgressiveSchedule
from nonlocal_video.errors import UsageError

Block = TypeVar("Block", bound=NonLocalBlock)


class NonLocalAnalyzer:
    """Complexity, receptive field, speed and attention patterns of blocks and networks.

    Example:
        >>> rows = NonLocalAnalyzer().analyze_computational_complexity([(1, 64, 4, 8, 8)], ["dot_product"])
        >>> rows[0].parameters, rows[0].num_queries
        (8480, 256)
    """

    def analyze_computational_complexity(
        self, input_shapes: Sequence[Sequence[int]], nonlocal_types: Sequence[NonLocalType]
    ) -> list[BlockComplexity]:
        """Count a block for every shape (B, C, *size) and kernel; see `compare_blocks`."""
        return compare_blocks(input_shapes, nonlocal_types)

    def analyze_receptive_field(
        self, model: nn.Module, input_shape: Sequence[int], *, layer: str | None = None
    ) -> FieldComparison:
        """Compute the effective and theoretical field of a layer, with and without blocks; see `compare_fields`.

        Args:
            model: A network on images or clips.
            input_shape: Shape (B, C, H, W) or (B, C, T, H, W); B is the number of noise inputs.
            layer: Dotted name; None is the last non-local block, or the last feature map if there is no block.

        Raises:
            UsageError: If the shape has another number of axes.
        """
        if len(input_shape) not in (4, 5):
            raise UsageError(f"input_shape = {tuple(input_shape)} should be (B, C, H, W) or (B, C, T, H, W).")
        batch, in_channels, *size = input_shape
        if layer is None:
            blocks = list(nonlocal_blocks(model))
            layer = blocks[-1] if blocks else theoretical_fields(model, size, in_channels=in_channels)[-1].layer
        return compare_fields(model, size, layer, num_inputs=batch, in_channels=in_channels)

    def benchmark_inference_speed(
        self,
        models: Mapping[str, nn.Module],
        input_shape: Sequence[int],
        device: str | torch.device = "cpu",
        num_runs: int = 10,
    ) -> dict[str, Speed]:
        """Measure time and peak memory of networks by name; see `measure_speed`."""
        speeds = measure_speed(models, input_shape, device=device, num_runs=num_runs)
        return {speed.network: speed for speed in speeds}

    def compare_attention_patterns(self, model: nn.Module, images: Tensor) -> dict[str, list[AttentionPattern]]:
        """Return for each block the pattern (entropy, sparsity, maximum, variance, ...) of each image or clip."""
        found: dict[str, list[AttentionPattern]] = {}
        for pattern in network_patterns(model, images):
            found.setdefault(pattern.block, []).append(pattern)
        return found


class NonLocalOptimizer:
    """Cheaper blocks, the progressive schedule, and changes that keep a limit.

    Example:
        >>> optimizer = NonLocalOptimizer()
        >>> optimizer.progressive_training(warmup_epochs=2, ramp_epochs=4, stages=(4,)).gates(4)
        {4: 0.5}
        >>> block = optimizer.sparse_attention(NonLocalBlock(64), top_k=8)
    """

    def memory_efficient(self, block: Block) -> Block:
        """Return a copy of a block with bounded memory; see `nonlocal_video.blocks.variants`, also for the next two."""
        return variants.memory_efficient(block)

    def sparse_attention(self, block: Block, top_k: int) -> Block:
        """Return a copy of a block in which each query keeps its `top_k` largest weights; the others are exactly 0."""
        return variants.sparse_attention(block, top_k)

    def factorized_attention(self, block: Block, rank: int) -> Block:
        """Return a copy of a block whose theta and phi have `rank` channels."""
        return variants.factorized_attention(block, rank)

    def progressive_training(
        self, warmup_epochs: float = 5, ramp_epochs: float = 5, stages: Sequence[int] = (4, 3, 2, 1)
    ) -> ProgressiveSchedule:
        """Return a schedule that starts without blocks and adds them by stages, each with a gate that grows to 1."""
        return ProgressiveSchedule(warmup_epochs, ramp_epochs, tuple(stages))

    def generate_optimization_recommendations(
        self, complexity: Sequence[BlockComplexity], constraints: BlockLimits | Mapping[str, float]
    ) -> list[BlockAdvice]:
        """Find for each counted block the smallest change that keeps the limits `memory_bytes` and `macs`."""
        if not isinstance(constraints, BlockLimits):
            unknown = sorted(set(constraints) - {"memory_bytes", "macs"})
            if unknown:
                raise UsageError(f"constraints has {unknown}; it can have memory_bytes and macs.")
            constraints = BlockLimits(**constraints)
        return advise_blocks(complexity, constraints)
