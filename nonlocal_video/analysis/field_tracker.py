"""Follows what the units of every feature map see of the input, while a network runs on the meta device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nonlocal_video.blocks import NonLocalBlock
from nonlocal_video.errors import ModelError

Span = tuple[float, float]
"""First and last input coordinate, both included; -inf and inf stand for the whole axis."""


@dataclass(frozen=True)
class Place:
    """Along every axis, what unit 0 of a feature map sees, and the step to the next unit's view."""

    spans: tuple[Span, ...]
    strides: tuple[float, ...] | None
    """None once the input's axes are lost, as after global pooling or a reshape."""


class FieldTracker(TorchDispatchMode):
    """Follows places from tensor to tensor while a network runs, below autograd, where operators have one name each.

    `attention.geometry` follows the centres of one path, which is what drawing needs; here all paths count.
    """

    def __init__(self, num_axes: int) -> None:
        super().__init__()
        self.num_axes = num_axes
        # By id, which is unique while a tensor lives: so tensors are kept (on the meta device they take no memory).
        self._places: dict[int, tuple[Tensor, Place]] = {}

    def start(self, clip: Tensor) -> None:
        self._places[id(clip)] = (clip, Place(((0.0, 0.0),) * self.num_axes, (1.0,) * self.num_axes))

    def place_of(self, output: Any) -> Place | None:
        """Where a feature map's units look; None if it is no feature map that comes from the clip."""
        if not isinstance(output, Tensor) or output.ndim != self.num_axes + 2:
            return None
        entry = self._places.get(id(output))
        return None if entry is None or entry[1].strides is None else entry[1]

    def leave_block(self, block: NonLocalBlock, inputs: tuple[Tensor, ...], output: Any) -> None:
        """A block's output sees what its input sees, and all of it along the axes that the block looks along."""
        result = output[0] if isinstance(output, tuple) else output
        place, size = self.place_of(inputs[0]), tuple(inputs[0].shape[2:])
        if place is None or place.strides is None:
            return
        spans = list(place.spans)
        for axis in range(self.num_axes):
            is_time = self.num_axes == 3 and axis == 0
            mode = block.config.mode if self.num_axes == 3 else "spacetime"
            if mode == ("space_only" if is_time else "time_only"):
                continue
            group = block.config.temporal_groups if is_time else None
            if group is None or group == size[axis]:
                spans[axis] = (-math.inf, math.inf)
            else:
                # The first and the last unit of a group see the same; this is what all units of any group see at
                # most: from group - 1 units before to group - 1 units behind.
                reach = (group - 1) * place.strides[axis]
                spans[axis] = (spans[axis][0] - reach, spans[axis][1] + reach)
        self._places[id(result)] = (result, Place(tuple(spans), place.strides))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sources = [tensor for tensor in _tensors([*args, *(kwargs or {}).values()]) if id(tensor) in self._places]
        if sources:
            for tensor in _tensors([result]):
                self._places[id(tensor)] = (tensor, self._placed(func, args, sources, tensor))
        return result

    def _placed(self, func: Any, args: Any, sources: list[Tensor], result: Tensor) -> Place:
        places = [self._places[id(source)][1] for source in sources]
        name = func.overloadpacket.__name__
        everything = Place(((-math.inf, math.inf),) * self.num_axes, None)
        if result.ndim != self.num_axes + 2:
            return everything
        if name in _WINDOWS:
            return self._windowed(places[0], *_WINDOWS[name](args))
        if name == "constant_pad_nd":
            # (left, right, top, bottom, ...), the last axis first, and axes that are not padded left out.
            before = ([0] * self.num_axes + args[1][-2::-2])[-self.num_axes :]
            return self._windowed(places[0], [1], [1], before, [1])
        strides = [
            place.strides
            for source, place in zip(sources, places, strict=True)
            if place.strides is not None and source.shape[2:] == result.shape[2:]
        ]
        if not strides or not (torch.Tag.pointwise in func.tags or name in _KEEP_PLACE):
            return everything
        spans = tuple(
            (min(span[0] for span in axis), max(span[1] for span in axis))
            for axis in zip(*(place.spans for place in places), strict=True)
        )
        return Place(spans, strides[0])

    def _windowed(
        self,
        place: Place,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> Place:
        """Unit 0 looks at units -padding to -padding + (kernel - 1) dilation of the map before."""
        if place.strides is None:
            return place
        axes = self.num_axes
        kernel, stride, padding, dilation = (
            [*numbers] * axes if len(numbers) == 1 else [*numbers] for numbers in (kernel, stride, padding, dilation)
        )
        spans = tuple(
            (low - step * pad, high + step * ((size - 1) * spread - pad))
            for (low, high), step, size, pad, spread in zip(
                place.spans, place.strides, kernel, padding, dilation, strict=True
            )
        )
        return Place(spans, tuple(step * by for step, by in zip(place.strides, stride, strict=True)))


# Operator -> (kernel, stride, padding, dilation) from its arguments, which below autograd are always positional.
_Window = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]


def _convolution(args: Any) -> _Window:
    if args[6]:
        raise ModelError("A transposed convolution's receptive field is not followed.")
    return args[1].shape[2:], args[3], args[4], args[5]


def _pooling(args: Any) -> _Window:
    given = dict(enumerate(args))
    return args[1], given.get(2) or args[1], given.get(3, [0]), given.get(4, [1])


def _average_pooling(args: Any) -> _Window:
    return *_pooling(args[:4])[:3], [1]


_WINDOWS: dict[str, Callable[[Any], _Window]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pooling,
    "max_pool3d_with_indices": _pooling,
    "avg_pool2d": _average_pooling,
    "avg_pool3d": _average_pooling,
}
_KEEP_PLACE = {"native_batch_norm", "_native_batch_norm_legit_no_training", "cat", "detach", "alias", "native_dropout"}


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among values, lists of tensors included."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(item for item in value if isinstance(item, Tensor))
    return found
