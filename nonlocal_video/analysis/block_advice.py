"""Advice on cheaper blocks: from counted blocks and a limit to the smallest change that keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nonlocal_video.analysis.complexity import BlockComplexity, config_complexity, with_kernel


@dataclass(frozen=True)
class BlockLimits:
    """Limits on the cost of one block in inference, for the whole batch.

    Raises:
        ValueError: If neither limit is given, or one is not above 0.
    """

    memory_bytes: float | None = None
    """Peak size of the live tensors, the input included."""
    macs: float | None = None
    """Number of multiply-accumulates."""

    def __post_init__(self) -> None:
        for name, value in (("memory_bytes", self.memory_bytes), ("macs", self.macs)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} = {value} should be above 0, or None.")
        if self.memory_bytes is None and self.macs is None:
            raise ValueError("give a limit: memory_bytes, macs, or both.")

    def excess(self, block: BlockComplexity) -> float:
        """Return the larger of memory and operations as shares of their limits; at most 1 if the limits are kept."""
        pairs = ((block.peak_bytes, self.memory_bytes), (block.counted_macs, self.macs))
        return max(cost / limit for cost, limit in pairs if limit is not None)


@dataclass(frozen=True)
class BlockAdvice:
    """A change to a block, and the block's cost before and after it."""

    change: str
    """Change in words; "nothing" for none."""
    before: BlockComplexity
    """Cost of the block as it is."""
    after: BlockComplexity
    """Cost after the change."""
    meets_limits: bool
    """Whether the changed block keeps the limits."""

    def __post_init__(self) -> None:
        if self.before.input_shape != self.after.input_shape:
            raise ValueError("before and after should be for the same input.")

    def to_row(self) -> dict[str, Any]:
        """Return the advice as column -> plain value."""
        return {
            "change": self.change,
            "meets_limits": self.meets_limits,
            "before": self.before.to_row(),
            "after": self.after.to_row(),
        }


def advise_blocks(complexity: Sequence[BlockComplexity], limits: BlockLimits) -> list[BlockAdvice]:
    """Find for each counted block the smallest change that keeps the limits, or the one that comes closest.

    Changes are tried in this order: none; pooled keys; half the inner channels; the dot product; and combinations. All
    but the first need training.
    """
    return [_advise(block, limits) for block in complexity]


def _advise(block: BlockComplexity, limits: BlockLimits) -> BlockAdvice:
    config = block.config
    pooled = replace(config, sub_sample=True)
    half, quarter = (max(1, block.inter_channels // share) for share in (2, 4))
    changes = {
        "nothing": config,
        "pooled keys": pooled,
        "half the inner channels": replace(config, inter_channels=half),
        "dot-product kernel": with_kernel(config, "dot_product"),
        "pooled keys, half the inner channels": replace(pooled, inter_channels=half),
        "pooled keys, dot-product kernel": with_kernel(pooled, "dot_product"),
        "pooled keys, a quarter of the inner channels, dot-product kernel": replace(
            with_kernel(pooled, "dot_product"), inter_channels=quarter
        ),
    }
    tried: list[tuple[float, BlockAdvice]] = []
    for words, changed in changes.items():
        if words != "nothing" and changed == config:
            continue
        after = config_complexity(block.input_shape, changed)
        excess = limits.excess(after)
        tried.append((excess, BlockAdvice(words, block, after, meets_limits=excess <= 1)))
        if excess <= 1:
            return tried[-1][1]
    return min(tried, key=lambda pair: pair[0])[1]
