"""Parameters, operations and activation bytes of a network or a block at any input shape, without running it."""

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
    """Complexity of one non-local block on an input (B, C, *size)."""

    name: str
    """Dotted name of the block."""
    config: NonLocalConfig
    """Settings of the block. The formulas are of these; only the counts include a variant (sparse, factorised)."""
    input_shape: tuple[int, ...]
    """Shape of the block's input, (B, C, *size)."""
    inter_channels: int
    """Number of channels of g."""
    num_sets: int
    """Number S of sets of positions that attend to each other."""
    num_queries: int
    """Number N of queries per set."""
    num_keys: int
    """Number M of keys per set."""
    parameters: int
    """Number of parameters."""
    counted_macs: int
    """Multiply-accumulates of convolutions and matrix products, counted as they are dispatched."""
    evaluation: Evaluation
    """Evaluation of the block's kernel at this shape. The next three fields are the closed formulas for that."""
    formula_macs: int
    """Multiply-accumulates by the formula."""
    formula_elementwise: int
    """Elementwise operations by the formula."""
    working_bytes: int
    """Bytes that the kernel holds besides theta, phi, g and y, by the formula."""
    map_bytes: int
    """Bytes of the attention maps S x N x M if they were written out."""
    peak_bytes: int
    """Peak size of the live tensors in inference, the input included."""
    training_bytes: int
    """Bytes held for the backward pass, the input included."""

    def __post_init__(self) -> None:
        if len(self.input_shape) < 3:
            raise ValueError(f"input_shape = {self.input_shape} should be (B, C, *size).")

    @property
    def nonlocal_type(self) -> NonLocalType:
        """Pairwise function of the block."""
        return self.config.nonlocal_type

    @property
    def formula_flops(self) -> int:
        """Floating-point operations by the formula: 2 MACs + elementwise operations."""
        return 2 * self.formula_macs + self.formula_elementwise

    def to_row(self) -> dict[str, Any]:
        """Return the complexity as column -> plain value."""
        return {
            **asdict(self),
            "nonlocal_type": self.nonlocal_type,
            "input_shape": list(self.input_shape),
            "formula_flops": self.formula_flops,
        }


@dataclass(frozen=True)
class LayerComplexity:
    """Complexity of one part of a network."""

    name: str
    """Dotted name of the part."""
    parameters: int
    """Number of parameters."""
    macs: int
    """Number of multiply-accumulates."""


@dataclass(frozen=True)
class Complexity:
    """Complexity of a network at one input shape; operations as in `BlockComplexity`."""

    network: str
    """Name of the network's class."""
    input_shape: tuple[int, ...]
    """Shape of the input, batch first."""
    dtype: str
    """Type of weights and activations."""
    parameters: int
    """Number of parameters."""
    parameter_bytes: int
    """Bytes of parameters and buffers."""
    macs: int
    """Number of multiply-accumulates."""
    peak_bytes: int
    """Peak size of the live tensors in inference: the input and activations, without weights and without the scratch
    space and copies inside operators, which on a CPU can take as much again or more."""
    training_bytes: int
    """Bytes held for the backward pass after a forward pass in eval mode, without weights."""
    layers: tuple[LayerComplexity, ...]
    """Outermost parts of the network, blocks inside them included."""
    blocks: tuple[BlockComplexity, ...]
    """Non-local blocks of the network."""

    def __post_init__(self) -> None:
        if sum(layer.macs for layer in self.layers) > self.macs:
            raise ValueError(f"the parts of {self.network} do {self.layers}, more than its {self.macs} MACs.")

    @property
    def nonlocal_macs(self) -> int:
        """Multiply-accumulates of all non-local blocks."""
        return sum(block.counted_macs for block in self.blocks)

    def to_row(self) -> dict[str, Any]:
        """Return the complexity as column -> plain value; `layers` and `blocks` are lists of rows."""
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
    """Count the operations and bytes of a network in eval mode, without allocating anything of the input's size.

    Args:
        network: A module that takes one tensor; it does not change.
        input_shape: Shape of the input, batch first: (B, 3, T, H, W) for a video network.
        dtype: Type of weights and activations.

    Example:
        >>> complexity = network_complexity(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False)), (1, 3, 10, 10))
        >>> complexity.macs == 8 * 8 * 8 * 3 * 3 * 3, complexity.parameters
        (True, 216)
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
    """Count the operations and bytes of one block on (B, C, *size), and compute the closed formulas.

    Example:
        >>> complexity = block_complexity(VideoNonLocalBlock(512), (1, 512, 4, 14, 14))
        >>> complexity.num_queries, complexity.num_keys
        (784, 196)
    """
    run = count_run(block, input_shape, dtype=dtype)
    training = count_run(block, input_shape, dtype=dtype, gradients=True)
    config, inner = block.config, block.inter_channels
    sets = position_sets(config, tuple(input_shape[2:]))
    depth = block.in_channels if config.nonlocal_type == "gaussian" else inner

    def formula_of(way: Evaluation) -> Operations:
        return block_operations(block.in_channels, config, input_shape, evaluation=way)

    evaluation = cheapest_evaluation(config.nonlocal_type, sets, depth, inner)
    if config.nonlocal_type in ("dot_product", "concatenation"):
        # The block chooses by time, not only by operations; the count shows which evaluation it chose.
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
    """Count a block for every input shape (B, C, *size) and kernel; `config` has the other settings."""
    rows = []
    for shape in input_shapes:
        for nonlocal_type in nonlocal_types:
            rows.append(config_complexity(shape, with_kernel(config or NonLocalConfig(), nonlocal_type), dtype=dtype))
    return rows


def config_complexity(
    input_shape: Sequence[int], config: NonLocalConfig, *, dtype: torch.dtype = torch.float32
) -> BlockComplexity:
    """Count the block that a configuration describes, without allocating its weights."""
    with torch.device("meta"):
        block = _new_block(input_shape, config)
    return block_complexity(block, input_shape, name=config.nonlocal_type, dtype=dtype)


def with_kernel(config: NonLocalConfig, nonlocal_type: NonLocalType) -> NonLocalConfig:
    """Return a configuration with another kernel; only the embedded Gaussian keeps a scale."""
    scale = config.scale if nonlocal_type == "embedded_gaussian" else None
    return replace(config, nonlocal_type=nonlocal_type, scale=scale)


def _new_block(shape: Sequence[int], config: NonLocalConfig) -> NonLocalBlock:
    """Create a block for (B, C, *size), on video if there are three sides."""
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
    """Return the input shape of each block."""
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
