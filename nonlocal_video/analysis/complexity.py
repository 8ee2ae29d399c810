"""Parameters, operations and activation bytes of a network or a block, at any input shape, without running it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from nonlocal_video.analysis.counting import count_run
from nonlocal_video.analysis.formulas import (
    EVALUATIONS,
    Evaluation,
    Operations,
    block_operations,
    cheapest_evaluation,
    position_sets,
)
from nonlocal_video.analysis.networks import nonlocal_blocks
from nonlocal_video.blocks import NonLocalBlock, NonLocalConfig, NonLocalType, VideoNonLocalBlock
from nonlocal_video.models.meta import meta_copy


@dataclass(frozen=True)
class BlockComplexity:
    """One non-local block on (B, C, *size)."""

    name: str
    config: NonLocalConfig
    """The formulas are of this block; of a variant (sparse, factorised) only what was counted is its own."""
    input_shape: tuple[int, ...]
    inter_channels: int
    num_sets: int
    num_queries: int
    """N of one set."""
    num_keys: int
    """M of one set."""
    parameters: int
    counted_macs: int
    """Multiply-accumulates of convolutions and matrix products, counted as they run."""
    evaluation: Evaluation
    """How the block evaluates its kernel here; the next three are that way's closed formulas."""
    formula_macs: int
    formula_elementwise: int
    working_bytes: int
    map_bytes: int
    """What the attention maps S x N x M would take if they were written out."""
    peak_bytes: int
    """Most bytes of tensors alive at one time in inference, the input included."""
    training_bytes: int
    """Bytes held for the backward pass, the input included."""

    def __post_init__(self) -> None:
        if len(self.input_shape) < 3:
            raise ValueError(f"input_shape = {self.input_shape} should be (B, C, *size).")

    @property
    def nonlocal_type(self) -> NonLocalType:
        """The pairwise function."""
        return self.config.nonlocal_type

    @property
    def formula_flops(self) -> int:
        """2 MACs + elementwise operations, by the formula."""
        return 2 * self.formula_macs + self.formula_elementwise

    def to_row(self) -> dict[str, Any]:
        """Column -> plain value."""
        return {
            **asdict(self),
            "nonlocal_type": self.nonlocal_type,
            "input_shape": list(self.input_shape),
            "formula_flops": self.formula_flops,
        }


@dataclass(frozen=True)
class LayerComplexity:
    """One part of a network."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """A network at one input shape; operations as in `BlockComplexity`."""

    network: str
    input_shape: tuple[int, ...]
    dtype: str
    parameters: int
    parameter_bytes: int
    """Bytes of parameters and buffers."""
    macs: int
    peak_bytes: int
    """Most bytes of tensors alive at one time in inference: the input and activations, without weights and without
    the scratch space and copies inside operators, which on a CPU can be as much again and more."""
    training_bytes: int
    """Bytes held for the backward pass after a forward pass in eval mode, without weights."""
    layers: tuple[LayerComplexity, ...]
    """The network's outermost parts, blocks inside them included."""
    blocks: tuple[BlockComplexity, ...]

    def __post_init__(self) -> None:
        if sum(layer.macs for layer in self.layers) > self.macs:
            raise ValueError(f"the parts of {self.network} do {self.layers}, more than its {self.macs} MACs.")

    @property
    def nonlocal_macs(self) -> int:
        """MACs of all non-local blocks."""
        return sum(block.counted_macs for block in self.blocks)

    def to_row(self) -> dict[str, Any]:
        """Column -> plain value; `layers` and `blocks` are lists of rows."""
        return {
            **asdict(self),
            "input_shape": list(self.input_shape),
            "nonlocal_macs": self.nonlocal_macs,
            "layers": [asdict(layer) for layer in self.layers],
            "blocks": [block.to_row() for block in self.blocks],
        }


def network_complexity(
    network: nn.Module, input_shape: Sequence[int], *, dtype: torch.dtype = torch.float32
) -> Complexity:
    """Counts a network in eval mode. Nothing of the input's size is allocated.

    Args:
        network: One tensor in; it isn't changed.
        input_shape: Batch first: (B, 3, T, H, W) for a video network.
        dtype: Of weights and activations.
    """
    shapes = meta_copy(network).to(dtype)
    block_inputs = _block_inputs(shapes, input_shape)
    run = count_run(shapes, input_shape, dtype=dtype)
    training = count_run(shapes, input_shape, dtype=dtype, gradients=True)
    tensors = [*shapes.parameters(), *shapes.buffers()]
    return Complexity(
        network=type(network).__name__,
        input_shape=tuple(input_shape),
        dtype=str(dtype).removeprefix("torch."),
        parameters=_parameters(shapes),
        parameter_bytes=sum(tensor.numel() * tensor.itemsize for tensor in tensors),
        macs=run.macs,
        peak_bytes=run.peak_bytes,
        training_bytes=training.held_bytes,
        layers=tuple(
            LayerComplexity(name, _parameters(child), run.macs_by_module.get(name, 0))
            for name, child in shapes.named_children()
            if name in run.macs_by_module or _parameters(child)
        ),
        blocks=tuple(
            block_complexity(block, block_inputs[name], name=name, dtype=dtype)
            for name, block in nonlocal_blocks(shapes).items()
            if name in block_inputs
        ),
    )


def block_complexity(
    block: NonLocalBlock, input_shape: Sequence[int], *, name: str = "", dtype: torch.dtype = torch.float32
) -> BlockComplexity:
    """Counts one block on (B, C, *size), and gives the closed formulas beside it."""
    run = count_run(block, input_shape, dtype=dtype)
    training = count_run(block, input_shape, dtype=dtype, gradients=True)
    config, inner = block.config, block.inter_channels
    sets = position_sets(config, tuple(input_shape[2:]))
    depth = block.in_channels if config.nonlocal_type == "gaussian" else inner

    def formula_of(way: Evaluation) -> Operations:
        return block_operations(block.in_channels, config, input_shape, evaluation=way)

    evaluation = cheapest_evaluation(config.nonlocal_type, sets, depth, inner)
    if config.nonlocal_type in ("dot_product", "concatenation"):
        # These weigh time, not only operations: what was counted says which way they took.
        ways = [way for kind, way in EVALUATIONS if kind == config.nonlocal_type]
        evaluation = min(ways, key=lambda way: abs(formula_of(way).macs - run.macs))
    formula = formula_of(evaluation)
    return BlockComplexity(
        name=name,
        config=config,
        input_shape=tuple(input_shape),
        inter_channels=inner,
        num_sets=sets.num_sets,
        num_queries=sets.num_queries,
        num_keys=sets.num_keys,
        parameters=_parameters(block),
        counted_macs=run.macs,
        evaluation=evaluation,
        formula_macs=formula.macs,
        formula_elementwise=formula.elementwise,
        working_bytes=formula.working_entries * dtype.itemsize,
        map_bytes=input_shape[0] * sets.map_entries * dtype.itemsize,
        peak_bytes=run.peak_bytes,
        training_bytes=training.held_bytes,
    )


def compare_blocks(
    input_shapes: Sequence[Sequence[int]],
    nonlocal_types: Sequence[NonLocalType],
    *,
    config: NonLocalConfig | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[BlockComplexity]:
    """One row for every input shape (B, C, *size) and kernel; `config` gives the rest of the block."""
    rows = []
    for shape in input_shapes:
        for nonlocal_type in nonlocal_types:
            rows.append(config_complexity(shape, with_type(config or NonLocalConfig(), nonlocal_type), dtype=dtype))
    return rows


def config_complexity(
    input_shape: Sequence[int], config: NonLocalConfig, *, dtype: torch.dtype = torch.float32
) -> BlockComplexity:
    """Counts the block that a configuration describes, without making its weights."""
    with torch.device("meta"):
        block = _new_block(input_shape, config)
    return block_complexity(block, input_shape, name=config.nonlocal_type, dtype=dtype)


def with_type(config: NonLocalConfig, nonlocal_type: NonLocalType) -> NonLocalConfig:
    """The same block with another kernel; only the embedded Gaussian has a scale."""
    scale = config.scale if nonlocal_type == "embedded_gaussian" else None
    return replace(config, nonlocal_type=nonlocal_type, scale=scale)


def _new_block(shape: Sequence[int], config: NonLocalConfig) -> NonLocalBlock:
    """A block for (B, C, *size): on video for three sides."""
    if len(shape) == 5:
        return VideoNonLocalBlock.from_config(shape[1], config)
    if len(shape) not in (3, 4):
        raise ValueError(f"input_shape = {tuple(shape)} should be (B, C, *size) with one to three sides.")
    return NonLocalBlock(
        shape[1],
        config.inter_channels,
        1 if len(shape) == 3 else 2,
        config.sub_sample,
        config.bn_layer,
        config.nonlocal_type,
        scale=config.scale,
        pool_order=config.pool_order,
        embed_bias=config.embed_bias,
        out_bias=config.out_bias,
    )


def _block_inputs(shapes: nn.Module, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """What shape goes into each block."""
    found: dict[str, tuple[int, ...]] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def record(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found[name] = tuple(inputs[0].shape)

        return record

    handles = [block.register_forward_pre_hook(recorder(name)) for name, block in nonlocal_blocks(shapes).items()]
    try:
        with torch.no_grad():
            shapes(torch.empty(tuple(input_shape), dtype=next(shapes.parameters()).dtype, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
