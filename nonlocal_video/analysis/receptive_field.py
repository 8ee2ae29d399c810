"""Theoretical receptive fields: from which frames and pixels a unit of a layer can get anything at all.

A unit's field is an interval along every axis of the input. Convolutions and pooling widen it and move it from unit to
unit by the layer's stride; where paths join (shortcuts, Inception's branches) the union holds; a non-local block opens
it along the axes that the block looks along. The network runs once on the meta device: shapes only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from nonlocal_video.analysis.networks import nonlocal_blocks
from nonlocal_video.errors import ModelError
from nonlocal_video.models.receptive_field_tracker import FeatureMap, Span, track_feature_maps


@dataclass(frozen=True)
class LayerField:
    """The receptive field of the units of one layer, axes (T, H, W) in frames and pixels or (H, W) in pixels."""

    layer: str
    cells: tuple[int, ...]
    """Size of the layer's output."""
    stride: tuple[float, ...]
    """Distance that the field moves from one unit to the next."""
    extent: tuple[float, ...]
    """Length of the field; inf where the unit gets the whole axis through a non-local block or a global operation."""
    first: tuple[float, ...]
    """First input coordinate in the field of unit 0; negative in the padding, -inf for the whole axis."""
    input_size: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = {len(axes) for axes in (self.cells, self.stride, self.extent, self.first, self.input_size)}
        if len(lengths) != 1 or min(self.extent) < 1:
            raise ValueError(f"{self} should have as many entries for each axis, and extents of at least 1.")

    @property
    def centre(self) -> tuple[int, ...]:
        """Index of the middle unit."""
        return tuple(cells // 2 for cells in self.cells)

    def span(self, axis: int, index: int) -> tuple[int, int]:
        """First and last coordinate along an axis that unit `index` sees, clipped to the input."""
        last = self.input_size[axis] - 1
        if math.isinf(self.extent[axis]):
            return 0, last
        start = self.first[axis] + self.stride[axis] * index
        return max(0, math.ceil(start)), min(last, math.floor(start + self.extent[axis] - 1))

    @property
    def seen(self) -> tuple[int, ...]:
        """Length of the middle unit's field inside the input."""
        spans = (self.span(axis, index) for axis, index in enumerate(self.centre))
        return tuple(last - first + 1 for first, last in spans)

    def to_row(self) -> dict[str, Any]:
        """Column -> plain value; an extent of the whole axis is None."""
        return {
            "layer": self.layer,
            "cells": list(self.cells),
            "stride": list(self.stride),
            "extent": [None if math.isinf(extent) else extent for extent in self.extent],
            "seen": list(self.seen),
            "input_size": list(self.input_size),
        }


def theoretical_fields(
    network: nn.Module, input_size: Sequence[int], layers: Sequence[str] | None = None, *, in_channels: int = 3
) -> list[LayerField]:
    """The fields of some layers' units, in the order in which the layers run.

    What views, reshapes and matrix products outside a `NonLocalBlock` add to a feature map counts as seeing everything
    (as a channel gate does, after its global pooling): an upper bound. What they make themselves is no feature map.

    Args:
        network: Takes (1, in_channels, *input_size); it isn't changed.
        input_size: (T, H, W), or (H, W) for images.
        layers: Dotted module names; None is the outermost modules that make feature maps, and all non-local blocks.
        in_channels: Channels of the input.

    Raises:
        ModelError: A name is not a module of the network, or its output is no feature map.
    """
    if len(input_size) not in (2, 3):
        raise ValueError(f"input_size = {tuple(input_size)} should be (T, H, W) or (H, W).")
    if any(
        isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)) for module in network.modules()
    ):
        raise ModelError("Receptive fields of networks with transposed convolutions are not supported.")
    wanted = layers
    if wanted is None:
        wanted = [*(name for name, _ in network.named_children()), *nonlocal_blocks(network)]
    found = track_feature_maps(network, input_size, wanted, in_channels=in_channels)
    fields = {
        name: _layer_field(name, feature_map, feature_map.field, input_size)
        for name, feature_map in found.items()
        if feature_map.field is not None
    }
    if layers is not None and (without := [name for name in layers if name not in fields]):
        raise ModelError(f"Layer {', '.join(without)} makes no feature map that can be followed from the input.")
    return list(fields.values())


def _layer_field(name: str, feature_map: FeatureMap, field: tuple[Span, ...], input_size: Sequence[int]) -> LayerField:
    return LayerField(
        layer=name,
        cells=feature_map.size,
        stride=feature_map.stride,
        extent=tuple(high - low + 1 if math.isfinite(high) else math.inf for low, high in field),
        first=tuple(low for low, _ in field),
        input_size=tuple(input_size),
    )
