"""From counted blocks and a limit to cheaper blocks that keep it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nonlocal_video.analysis.complexity import BlockComplexity, config_complexity, with_type


@dataclass(frozen=True)
class BlockLimits:
    """What one block may cost in inference, for the whole batch."""

    memory_bytes: float | None = None
    """Peak of the tensors alive, the input included."""
    macs: float | None = None
    """Multiply-accumulates."""

    def __post_init__(self) -> None:
        for name, value in (("memory_bytes", self.memory_bytes), ("macs", self.macs)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} = {value} should be above 0, or None.")
        if self.memory_bytes is None and self.macs is None:
            raise ValueError("give a limit: memory_bytes, macs, or both.")

    def excess(self, block: BlockComplexity) -> float:
        """The larger of memory and operations, each as a share of its limit; up to 1 the limits are kept."""
        pairs = ((block.peak_bytes, self.memory_bytes), (block.counted_macs, self.macs))
        return max(cost / limit for cost, limit in pairs if limit is not None)


@dataclass(frozen=True)
class BlockAdvice:
    """What to change about a block, and what it costs then."""

    change: str
    before: BlockComplexity
    after: BlockComplexity
    meets_limits: bool

    def __post_init__(self) -> None:
        if self.before.input_shape != self.after.input_shape:
            raise ValueError("before and after should be for the same input.")

    def to_row(self) -> dict[str, Any]:
        """Column -> plain value."""
        return {
            "change": self.change,
            "meets_limits": self.meets_limits,
            "before": self.before.to_row(),
            "after": self.after.to_row(),
        }


def advise_blocks(complexity: Sequence[BlockComplexity], limits: BlockLimits) -> list[BlockAdvice]:
    """For each counted block the smallest change that keeps the limits, or the one that comes nearest.

    In this order: nothing; pooled keys; half the inner channels; the dot product; and these together. All but the
    first need training.
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
        "dot-product kernel": with_type(config, "dot_product"),
        "pooled keys, half the inner channels": replace(pooled, inter_channels=half),
        "pooled keys, dot-product kernel": with_type(pooled, "dot_product"),
        "pooled keys, a quarter of the inner channels, dot-product kernel": replace(
            with_type(pooled, "dot_product"), inter_channels=quarter
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
