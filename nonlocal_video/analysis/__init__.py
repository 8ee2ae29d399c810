"""Analysis of non-local blocks and networks: complexity, receptive field, speed, attention, recommendations."""

from nonlocal_video.analysis.block_advice import BlockAdvice, BlockLimits, advise_blocks
from nonlocal_video.analysis.complexity import (
    BlockComplexity,
    Complexity,
    block_complexity,
    compare_blocks,
    network_complexity,
)
from nonlocal_video.analysis.effective_receptive_field import (
    EffectiveField,
    FieldComparison,
    compare_fields,
    effective_field,
)
from nonlocal_video.analysis.formulas import Operations, block_operations, kernel_operations
from nonlocal_video.analysis.networks import nonlocal_blocks, without_blocks
from nonlocal_video.analysis.patterns import AttentionPattern, block_pattern, network_patterns
from nonlocal_video.analysis.rates import Rates, measure_rates
from nonlocal_video.analysis.receptive_field import LayerField, theoretical_fields
from nonlocal_video.analysis.recommend import Limits, Recommendation, recommend
from nonlocal_video.analysis.speed import Speed, measure_speed, peak_memory
from nonlocal_video.analysis.tutorial import NonLocalAnalyzer, NonLocalOptimizer
from nonlocal_video.blocks.schedule import ProgressiveSchedule, ProgressiveTraining

__all__ = [
    "AttentionPattern",
    "BlockAdvice",
    "BlockComplexity",
    "BlockLimits",
    "Complexity",
    "EffectiveField",
    "FieldComparison",
    "LayerField",
    "Limits",
    "NonLocalAnalyzer",
    "NonLocalOptimizer",
    "Operations",
    "ProgressiveSchedule",
    "ProgressiveTraining",
    "Rates",
    "Recommendation",
    "Speed",
    "advise_blocks",
    "block_complexity",
    "block_operations",
    "block_pattern",
    "compare_blocks",
    "compare_fields",
    "effective_field",
    "kernel_operations",
    "measure_rates",
    "measure_speed",
    "network_complexity",
    "network_patterns",
    "nonlocal_blocks",
    "peak_memory",
    "recommend",
    "theoretical_fields",
    "without_blocks",
]
