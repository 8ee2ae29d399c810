"""Closed formulas for the operations and the memory of the non-local kernels and blocks.

One multiply-accumulate (MAC) is a multiplication and the addition that follows it in a convolution or a matrix product:
what the papers' tables call FLOPs. All other operations (exponentials, comparisons, divisions, single additions) are
counted separately, as elementwise operations. Floating-point operations are 2 MACs + elementwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

from nonlocal_video.blocks import NonLocalConfig, NonLocalType

Evaluation = Literal["matrix", "fused", "state", "sorted"]
"""Evaluations of a kernel. matrix: the N x M weights are written out. fused: they are computed and used piece by
piece (scaled_dot_product_attention). state: dot product as theta (phi^T g), D x D'. sorted: concatenation by sorting
the keys' half of the ReLU's argument, with prefix sums."""


@dataclass(frozen=True)
class Operations:
    """Cost of a computation, for all sets and samples together."""

    macs: int
    """Number of multiply-accumulates."""
    elementwise: int
    """Number of elementwise operations."""
    working_entries: int
    """Number of values that the kernel holds besides theta, phi, g and y."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} = {getattr(self, field.name)} should not be negative.")

    @property
    def flops(self) -> int:
        """Number of floating-point operations and comparisons."""
        return 2 * self.macs + self.elementwise

    def __mul__(self, times: int) -> Operations:
        return Operations(self.macs * times, self.elementwise * times, self.working_entries * times)

    def to_row(self) -> dict[str, int]:
        """Return the cost as column -> number."""
        return {**asdict(self), "flops": self.flops}


def kernel_operations(
    nonlocal_type: NonLocalType, evaluation: Evaluation, num_queries: int, num_keys: int, depth: int, value_depth: int
) -> Operations:
    """Compute the cost of one kernel on one set: theta (N, D), phi (M, D), g (M, D').

    Args:
        nonlocal_type: The pairwise function.
        evaluation: How it is evaluated; `EVALUATIONS` lists the combinations.
        num_queries: N.
        num_keys: M.
        depth: D.
        value_depth: D'.

    Raises:
        ValueError: If the pairwise function has no such evaluation.

    Example:
        >>> kernel_operations("dot_product", "state", num_queries=784, num_keys=196, depth=256, value_depth=256).macs
        64225280
    """
    formula = _FORMULAS.get((nonlocal_type, evaluation))
    if formula is None:
        known = [way for kind, way in _FORMULAS if kind == nonlocal_type]
        raise ValueError(f"{evaluation = } should be one of {known} for {nonlocal_type!r}.")
    return formula(num_queries, num_keys, depth, value_depth)


def _softmax_matrix(n: int, m: int, d: int, v: int) -> Operations:
    # Per entry: scale, maximum, subtraction, exponential, sum, division.
    return Operations(n * m * (d + v), 6 * n * m, n * m)


def _softmax_fused(n: int, m: int, d: int, v: int) -> Operations:
    # Online softmax: the division is applied to the result; a row keeps its maximum and its sum. Fused kernels need
    # rows of one depth, so the shorter of theta and g is padded (the Gaussian's g: half of D).
    depth = max(d, v)
    filled = n * (depth - v) + m * (depth - v) + (n + m) * (depth - d)
    return Operations(2 * n * m * depth, 5 * n * m + n * v, 2 * n + filled)


def _dot_matrix(n: int, m: int, d: int, v: int) -> Operations:
    return Operations(n * m * (d + v), m * v, n * m + m * v)  # 1 / M is applied to g


def _dot_state(n: int, m: int, d: int, v: int) -> Operations:
    return Operations(d * v * (n + m), d * v, 2 * d * v)  # 1 / M is applied to phi^T g


def _concatenation_matrix(n: int, m: int, d: int, v: int) -> Operations:
    # a_i and b_j are matrix-vector products. Per entry: addition, ReLU, division.
    return Operations((n + m) * d + n * m * v, 3 * n * m, 2 * n * m + n + m)


def _concatenation_sorted(n: int, m: int, d: int, v: int) -> Operations:
    # Sort the b_j and find each -a_i among them; sums of g over the first keys; their steps and the sums of these; for
    # each query one of each, a product and a sum; division by M (`nonlocal_video.blocks.sorted_prefix_sums`).
    search = math.ceil(math.log2(m)) if m > 1 else 1
    working = max(4 * m * v, 2 * m * v + 3 * n * v) + 4 * (n + m)  # computing the sums; selecting from them
    return Operations((n + m) * d, (n + m) * search + 3 * m * v + 3 * n * v, working)


_FORMULAS: dict[tuple[NonLocalType, Evaluation], Callable[[int, int, int, int], Operations]] = {
    ("gaussian", "matrix"): _softmax_matrix,
    ("gaussian", "fused"): _softmax_fused,
    ("embedded_gaussian", "matrix"): _softmax_matrix,
    ("embedded_gaussian", "fused"): _softmax_fused,
    ("dot_product", "matrix"): _dot_matrix,
    ("dot_product", "state"): _dot_state,
    ("concatenation", "matrix"): _concatenation_matrix,
    ("concatenation", "sorted"): _concatenation_sorted,
}
EVALUATIONS: tuple[tuple[NonLocalType, Evaluation], ...] = tuple(_FORMULAS)


@dataclass(frozen=True)
class PositionSets:
    """Sets of positions that attend to each other in a block: S sets of N queries and M keys in each sample."""

    num_sets: int
    """Number of sets, S."""
    num_queries: int
    """Number of queries in a set, N."""
    num_keys: int
    """Number of keys in a set, M."""

    @property
    def map_entries(self) -> int:
        """Number of entries of all attention maps of a sample."""
        return self.num_sets * self.num_queries * self.num_keys


def position_sets(config: NonLocalConfig, size: Sequence[int]) -> PositionSets:
    """Return the sets of positions for features of `size`: (L,), (H, W) or (T, H, W), on which alone `mode` acts."""
    pools = [config.sub_sample and side > 1 for side in size]
    if len(size) == 3:
        pools[0] = False  # time is never pooled
    key_size = [side // 2 if pooled else side for side, pooled in zip(size, pools, strict=True)]
    if len(size) != 3:
        return PositionSets(1, math.prod(size), math.prod(key_size))
    num_frames, pixels, keys = size[0], math.prod(size[1:]), math.prod(key_size[1:])
    group = 1 if config.mode == "space_only" else config.temporal_groups or num_frames
    if num_frames % group:
        raise ValueError(f"temporal_groups = {group} does not divide the {num_frames} frames of {tuple(size)}.")
    if config.mode == "time_only":
        return PositionSets(num_frames // group * pixels, group, group)
    return PositionSets(num_frames // group, group * pixels, group * keys)


def cheapest_evaluation(nonlocal_type: NonLocalType, sets: PositionSets, depth: int, value_depth: int) -> Evaluation:
    """Return the evaluation of a kernel with the fewest operations; for the softmax, which ties, with the least memory.

    Fewest operations is not always least time: sorting and adding run slower than matrix products.
    """
    n, m = sets.num_queries, sets.num_keys
    if nonlocal_type in ("gaussian", "embedded_gaussian"):
        return "matrix" if n * m <= (n + m) * (depth + value_depth) else "fused"
    ways = [way for kind, way in EVALUATIONS if kind == nonlocal_type]
    return min(ways, key=lambda way: kernel_operations(nonlocal_type, way, n, m, depth, value_depth).flops)


def block_operations(
    in_channels: int, config: NonLocalConfig, input_shape: Sequence[int], *, evaluation: Evaluation | None = None
) -> Operations:
    """Compute the cost of a whole block on (B, C, *size): theta, phi, g and W (1x1 convolutions), and the kernel.

    Args:
        in_channels: Number of channels C.
        config: Settings of the block.
        input_shape: Shape (B, C, *size) of its input.
        evaluation: How the kernel is evaluated; None is the cheapest way.

    Raises:
        ValueError: If the shape does not fit.
    """
    if len(input_shape) not in (3, 4, 5) or input_shape[1] != in_channels:
        raise ValueError(f"input_shape = {tuple(input_shape)} should be (B, {in_channels}, *size), one to three sides.")
    size = tuple(input_shape[2:])
    sets = position_sets(config, size)
    inner = config.inter_channels or max(1, in_channels // 2)
    embedded = config.nonlocal_type != "gaussian"
    depth = inner if embedded else in_channels
    way = evaluation or cheapest_evaluation(config.nonlocal_type, sets, depth, inner)
    kernel = kernel_operations(config.nonlocal_type, way, sets.num_queries, sets.num_keys, depth, inner)
    positions = math.prod(size)
    # If keys are pooled first, phi and g have fewer positions, too.
    key_source = sets.num_sets * sets.num_keys if config.pool_order == "pool_conv" else positions
    projections = 2 if embedded else 1  # theta and W on positions, phi and g on keys; the Gaussian has W and g
    convolutions = projections * in_channels * inner * (positions + key_source)
    total = kernel * sets.num_sets
    total = Operations(
        macs=total.macs + convolutions,
        elementwise=total.elementwise + 2 * in_channels * positions,  # the batch norm's bias, z = x + W y
        working_entries=total.working_entries,
    )
    return total * input_shape[0]


def block_parameters(in_channels: int, config: NonLocalConfig) -> int:
    """Count the parameters of a block: theta, phi, g, W, the concatenation's w_f and the batch norm's gain and bias."""
    inner = config.inter_channels or max(1, in_channels // 2)
    embeddings = 1 if config.nonlocal_type == "gaussian" else 3
    total = embeddings * (in_channels * inner + (inner if config.embed_bias else 0))
    total += inner * in_channels + (in_channels if config.out_bias else 0)
    total += 2 * inner if config.nonlocal_type == "concatenation" else 0
    return total + (2 * in_channels if config.bn_layer else 0)
