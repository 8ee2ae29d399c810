"""The tutorial's two classes: its names and arguments over this package's functions."""

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
    """Complexity, receptive field, speed and attention patterns of blocks and networks."""

    def analyze_computational_complexity(
        self, input_shapes: Sequence[Sequence[int]], nonlocal_types: Sequence[NonLocalType]
    ) -> list[BlockComplexity]:
        """One row for every shape (B, C, *size) and kernel; see `compare_blocks`."""
        return compare_blocks(input_shapes, nonlocal_types)

    def analyze_receptive_field(
        self, model: nn.Module, input_shape: Sequence[int], *, layer: str | None = None
    ) -> FieldComparison:
        """The effective and theoretical field of a layer, with and without blocks; see `compare_fields`.

        Args:
            model: A network on images or clips.
            input_shape: (B, C, H, W) or (B, C, T, H, W); B is the number of noise inputs.
            layer: Dotted name; None is the last non-local block, or the last feature map if there is none.
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
        """Seconds and peak memory by name; see `measure_speed`."""
        speeds = measure_speed(models, input_shape, device=device, num_runs=num_runs)
        return {speed.network: speed for speed in speeds}

    def compare_attention_patterns(self, model: nn.Module, images: Tensor) -> dict[str, list[AttentionPattern]]:
        """Block -> the pattern (entropy, sparsity, maximum, variance, ...) of each image or clip."""
        found: dict[str, list[AttentionPattern]] = {}
        for pattern in network_patterns(model, images):
            found.setdefault(pattern.block, []).append(pattern)
        return found


class NonLocalOptimizer:
    """Cheaper blocks, the progressive schedule, and what to change to keep a limit."""

    def memory_efficient(self, block: Block) -> Block:
        """A copy whose memory is bounded; see `nonlocal_video.blocks.variants`, also for the next two."""
        return variants.memory_efficient(block)

    def sparse_attention(self, block: Block, top_k: int) -> Block:
        """A copy in which each query keeps its `top_k` largest weights; the others are exactly 0."""
        return variants.sparse_attention(block, top_k)

    def factorized_attention(self, block: Block, rank: int) -> Block:
        """A copy with theta and phi of `rank` channels."""
        return variants.factorized_attention(block, rank)

    def progressive_training(
        self, warmup_epochs: float = 5, ramp_epochs: float = 5, stages: Sequence[int] = (4, 3, 2, 1)
    ) -> ProgressiveSchedule:
        """First no blocks, then stage by stage, each with a weight that grows to 1."""
        return ProgressiveSchedule(warmup_epochs, ramp_epochs, tuple(stages))

    def generate_optimization_recommendations(
        self, complexity: Sequence[BlockComplexity], constraints: BlockLimits | Mapping[str, float]
    ) -> list[BlockAdvice]:
        """For each counted block the smallest change that keeps the limits `memory_bytes` and `macs`."""
        if not isinstance(constraints, BlockLimits):
            unknown = sorted(set(constraints) - {"memory_bytes", "macs"})
            if unknown:
                raise UsageError(f"constraints has {unknown}; it can have memory_bytes and macs.")
            constraints = BlockLimits(**constraints)
        return advise_blocks(complexity, constraints)
