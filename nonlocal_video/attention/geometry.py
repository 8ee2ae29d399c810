"""Grids of feature cells: cell <-> network input.

A cell lies at the centre of its receptive field, which `nonlocal_video.models.receptive_field_tracker` follows
through the network; the maps take it on to frame pixels and seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nonlocal_video.errors import ModelError
from nonlocal_video.models.receptive_field_tracker import track_feature_maps


@dataclass(frozen=True)
class CellGrid:
    """A (T', H', W') grid of feature cells in the (T, H, W) network input; axes are always time, height, width.

    The centre of cell i along an axis is `offset + stride * i`, in input frames and pixels, 0 being the centre of
    the first one.
    """

    size: tuple[int, int, int]
    stride: tuple[float, float, float]
    offset: tuple[float, float, float]

    def __post_init__(self) -> None:
        if min(self.size) < 1 or min(self.stride) <= 0:
            raise ValueError(f"{self.size = } should be at least 1 and {self.stride = } above 0 along every axis.")

    def centre(self, axis: int, index: int) -> float:
        """Input coordinate of cell `index` along `axis`."""
        return self.offset[axis] + self.stride[axis] * index

    def nearest(self, axis: int, coordinate: float) -> int:
        """The cell whose centre is nearest to an input coordinate."""
        index = round((coordinate - self.offset[axis]) / self.stride[axis])
        return min(max(index, 0), self.size[axis] - 1)

    def interpolation(self, axis: int, coordinates: NDArray[np.float64]) -> NDArray[np.float32]:
        """Linear interpolation from cells to input coordinates: (len(coordinates), size), rows sum to 1.

        Outside the first and last centre the nearest cell holds.
        """
        place = np.clip((coordinates - self.offset[axis]) / self.stride[axis], 0, self.size[axis] - 1)
        lower = np.minimum(np.floor(place).astype(np.int64), max(self.size[axis] - 2, 0))
        upper = np.minimum(lower + 1, self.size[axis] - 1)
        fraction = place - lower
        rows = np.arange(len(coordinates))
        weights = np.zeros((len(coordinates), self.size[axis]))
        weights[rows, lower] += 1 - fraction
        weights[rows, upper] += fraction
        return weights.astype(np.float32)

    def pooled(self, size: tuple[int, int, int]) -> CellGrid:
        """The grid of keys that max-pooling makes of this one.

        The window is the smallest that leaves `size` cells, a rest at the end being dropped: 15 -> 7 and 3 -> 1 are
        windows of 2.
        """
        window = [old // (new + 1) + 1 for old, new in zip(self.size, size, strict=True)]
        return CellGrid(
            size=size,
            stride=_triple(s * w for s, w in zip(self.stride, window, strict=True)),
            offset=_triple(o + s * (w - 1) / 2 for o, s, w in zip(self.offset, self.stride, window, strict=True)),
        )


def layer_grids(network: nn.Module, input_size: Sequence[int], layers: Sequence[str]) -> dict[str, CellGrid]:
    """Return the cell grids of the outputs of the named modules, for an input of (T, H, W).

    Runs a copy of the network once on the meta device: shapes only, no arithmetic. While it is copied nobody else may
    run it with hooks.

    Raises:
        ModelError: A name is not a module of the network, or its output is not a feature map of the input.
    """
    found = track_feature_maps(network, input_size, layers)
    grids = {}
    for name in layers:
        if name not in found:
            raise ModelError(f"Layer {name!r} does not give a (N, C, T, H, W) feature map of the clip.")
        feature_map = found[name]
        grids[name] = CellGrid(_triple(feature_map.size), _triple(feature_map.stride), _triple(feature_map.offset))
    return grids


def _triple(values: Iterable[Any]) -> Any:
    """Three numbers -> a tuple of them."""
    return tuple(values)
