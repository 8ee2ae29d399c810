"""Strides, centres and receptive fields of feature maps, followed through a network that runs on the meta device.

A cell's centre moves by one stride from cell to cell, but where cell 0 lies depends on padding: after four layers of
stride 2, TF SAME padding puts it at pixel 15 and symmetric padding at pixel 0 of the input, while dividing the picture
evenly would say 7.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nonlocal_video.blocks import NonLocalBlock
from nonlocal_video.errors import ModelError
from nonlocal_video.models.meta import OperatorMode, meta_copy, run_for_shapes

Span = tuple[float, float]
"""First and last input coordinate, both included; -inf and inf stand for the whole axis."""
_WHOLE_AXIS = (-math.inf, math.inf)


@dataclass(frozen=True)
class FeatureMap:
    """Geometry of a feature map in the network's input; one entry an axis, in frames and pixels."""

    size: tuple[int, ...]
    stride: tuple[float, ...]
    """Distance between the centres of neighbouring cells."""
    offset: tuple[float, ...]
    """Centre of cell 0; 0 is the centre of the first frame or pixel. Where paths join, the first operand's centre."""
    field: tuple[Span, ...] | None
    """Receptive field of cell 0 over all paths, padding included. None for the result of an operator whose field is
    not followed, and of what such results alone go into."""


def track_feature_maps(
    network: nn.Module, input_size: Sequence[int], layers: Sequence[str], *, in_channels: int = 3
) -> dict[str, FeatureMap]:
    """Return the geometry of the outputs of some layers, in the order in which the layers run.

    Runs a copy of the network once on the meta device: shapes only, no arithmetic. While it is copied nobody else may
    run it with hooks. Layers that do not run, and those whose output is not a feature map of the input, are left out.

    Args:
        network: Takes (1, in_channels, *input_size); it isn't changed.
        input_size: (T, H, W), or (H, W) for images.
        layers: Dotted module names.
        in_channels: Channels of the input.

    Raises:
        ModelError: A name is not a module of the network.
    """
    # In inference mode, which a caller may be in, operators have other names.
    with torch.inference_mode(False), torch.no_grad():
        return _track(meta_copy(network).float(), input_size, layers, in_channels)


def _track(
    shapes_only: nn.Module, input_size: Sequence[int], layers: Sequence[str], in_channels: int
) -> dict[str, FeatureMap]:
    """Hook a copy on the meta device, and run it."""
    modules = dict(shapes_only.named_modules())
    if missing := [name for name in layers if name not in modules]:
        raise ModelError(f"The network has no layer {', '.join(missing)}. Its layers are listed by `named_modules()`.")
    tracker = _Operators(len(input_size))
    found: dict[str, FeatureMap] = {}

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if (feature_map := tracker.feature_map(output)) is not None:
                found[name] = feature_map

        return record

    for name, module in modules.items():
        if isinstance(module, NonLocalBlock):
            module.register_forward_hook(tracker.leave_block)
        if name in layers:  # after the block's own hook, which widens its output's field
            module.register_forward_hook(recorder(name))
    clip = torch.empty((1, in_channels, *input_size), device="meta")
    tracker.start(clip)
    with tracker, _Calls(tracker):
        shapes_only(clip)
    return found


class _Operators(OperatorMode):
    """Follows feature maps from operator to operator, below autograd, where operators have one name each."""

    def __init__(self, num_axes: int) -> None:
        super().__init__()
        self.num_axes = num_axes
        # By id, which is unique while a tensor lives: so tensors are kept (on the meta device they take no memory).
        # None for what depends on the input and has lost its axes, as after global pooling or a reshape.
        self._maps: dict[int, tuple[Tensor, FeatureMap | None]] = {}

    def start(self, clip: Tensor) -> None:
        axes = self.num_axes
        self.set(clip, FeatureMap(tuple(clip.shape[2:]), (1.0,) * axes, (0.0,) * axes, ((0.0, 0.0),) * axes))

    def set(self, tensor: Tensor, feature_map: FeatureMap | None) -> None:
        self._maps[id(tensor)] = (tensor, feature_map)

    def feature_map(self, output: Any) -> FeatureMap | None:
        """A tensor's geometry; None if it is no tensor, or no feature map of the clip."""
        return self._maps[id(output)][1] if id(output) in self._maps else None

    def leave_block(self, block: NonLocalBlock, inputs: tuple[Tensor, ...], output: Any) -> None:
        """A block's output sees what its input sees, and all of it along the axes of its attention."""
        result = output[0] if isinstance(output, tuple) else output
        before = self.feature_map(inputs[0])
        if before is None or before.field is None:
            return
        field = list(before.field)
        for axis in range(self.num_axes):
            is_time = self.num_axes == 3 and axis == 0
            mode = block.config.mode if self.num_axes == 3 else "spacetime"
            if mode == ("space_only" if is_time else "time_only"):
                continue
            group = block.config.temporal_groups if is_time else None
            if group is None or group == before.size[axis]:
                field[axis] = _WHOLE_AXIS
            else:
                # The first and the last cell of a group see the same; this is what all cells of any group see at
                # most: from group - 1 cells before to group - 1 cells behind.
                reach = (group - 1) * before.stride[axis]
                field[axis] = (field[axis][0] - reach, field[axis][1] + reach)
        self.set(result, replace(before, field=tuple(field)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = run_for_shapes(func, args, kwargs or {})
        sources = [tensor for tensor in _tensors([*args, *(kwargs or {}).values()]) if id(tensor) in self._maps]
        if sources:
            for tensor in _tensors([result]):
                self.set(tensor, self._follow(func, args, [self.feature_map(source) for source in sources], tensor))
        return result

    def _follow(self, func: Any, args: Any, sources: list[FeatureMap | None], result: Tensor) -> FeatureMap | None:
        name = func.overloadpacket.__name__
        if result.ndim != self.num_axes + 2:
            return None
        if name in _WINDOWS and (window := _WINDOWS[name](args)) is not None:
            return self._windowed(sources[0], window, result)
        if name == "constant_pad_nd":
            return self.padded(sources[0], args[1], result)
        aligned = [source for source in sources if source is not None and source.size == result.shape[2:]]
        if not aligned:
            return None
        field = None
        if (torch.Tag.pointwise in func.tags or name in _POINTWISE) and any(
            source.field is not None for source in aligned
        ):
            whole = (_WHOLE_AXIS,) * self.num_axes
            fields = [whole if source is None or source.field is None else source.field for source in sources]
            field = tuple(
                (min(low for low, _ in axis), max(high for _, high in axis)) for axis in zip(*fields, strict=True)
            )
        return replace(aligned[0], field=field)

    def padded(self, source: FeatureMap | None, pads: Sequence[int], result: Tensor) -> FeatureMap | None:
        """Move a feature map by padding: (left, right, top, bottom, ...), from the last axis on."""
        before = ([0] * self.num_axes + list(pads[-2::-2]))[-self.num_axes :]
        return self._windowed(source, ([1], [1], before, [1]), result)

    def _windowed(self, source: FeatureMap | None, window: _Window, result: Tensor) -> FeatureMap | None:
        """Cell 0 gets cells -padding to -padding + (kernel - 1) dilation of the map before."""
        if source is None:
            return None
        kernel, steps, padding, dilation = (
            [*numbers] * self.num_axes if len(numbers) == 1 else [*numbers] for numbers in window
        )
        first = [-stride * pad for stride, pad in zip(source.stride, padding, strict=True)]
        reach = [
            stride * (size - 1) * spread for stride, size, spread in zip(source.stride, kernel, dilation, strict=True)
        ]
        field = None
        if source.field is not None:
            field = tuple(
                (low + start, high + start + length)
                for (low, high), start, length in zip(source.field, first, reach, strict=True)
            )
        return FeatureMap(
            size=tuple(result.shape[2:]),
            stride=tuple(stride * step for stride, step in zip(source.stride, steps, strict=True)),
            offset=tuple(
                centre + start + length / 2 for centre, start, length in zip(source.offset, first, reach, strict=True)
            ),
            field=field,
        )


class _Calls(TorchFunctionMode):
    """Follows the calls that PyTorch takes apart before they become operators: strides and centres, no field."""

    def __init__(self, operators: _Operators) -> None:
        super().__init__()
        self._operators = operators

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operators = self._operators
        if not isinstance(result, Tensor) or operators.feature_map(result) is not None:
            return result
        sources = [operators.feature_map(tensor) for tensor in _tensors([*args, *kwargs.values()])]
        source = next((source for source in sources if source is not None), None)
        if source is None or result.ndim != operators.num_axes + 2:
            return result
        if func is F.pad:  # by reflection or the like; zeros are an operator
            followed = operators.padded(source, args[1] if len(args) > 1 else kwargs["pad"], result)
            assert followed is not None  # the source is there
            operators.set(result, replace(followed, field=None))
        elif source.size == result.shape[2:]:
            operators.set(result, replace(source, field=None))
        return result


# Operator -> (kernel, stride, padding, dilation) from its arguments, which below autograd are always positional.
_Window = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]


def _convolution(args: Any) -> _Window | None:
    transposed = args[6]
    return None if transposed else (args[1].shape[2:], args[3], args[4], args[5])


def _pooling(args: Any) -> _Window:
    given = dict(enumerate(args))
    return args[1], given.get(2) or args[1], given.get(3, [0]), given.get(4, [1])


def _average_pooling(args: Any) -> _Window:
    return *_pooling(args[:4])[:3], [1]


_WINDOWS: dict[str, Callable[[Any], _Window | None]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pooling,
    "max_pool3d_with_indices": _pooling,
    "avg_pool2d": _average_pooling,
    "avg_pool3d": _average_pooling,
}
_POINTWISE = {"native_batch_norm", "_native_batch_norm_legit_no_training", "cat", "detach", "alias", "native_dropout"}


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among values, lists of tensors included."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(item for item in value if isinstance(item, Tensor))
    return found
