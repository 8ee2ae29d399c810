"""Where a feature cell lies in the clip: cell <-> network input <-> frame pixel and second.

A cell's place is the centre of its receptive field. It moves by one stride from cell to cell, but where cell 0
lies depends on padding: after four layers of stride 2, TF SAME padding puts it at pixel 15 and symmetric padding
at pixel 0 of the input, while dividing the picture evenly would say 7.5. So it is followed through the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nonlocal_video.errors import ModelError


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
    """The cell grids of the outputs of the named modules, for an input of (T, H, W).

    Runs a copy of the network once on the meta device: shapes only, no arithmetic. While it is copied nobody else may
    run it with hooks.

    Raises:
        ModelError: A name is not a module of the network, or its output is not a feature map of the input.
    """
    modules = dict(network.named_modules())
    if missing := [name for name in layers if name not in modules]:
        raise ModelError(f"The network has no layer {', '.join(missing)}. Its layers are listed by `named_modules()`.")
    shapes_only = without_storage(network).eval()
    outputs: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs[name] = output

        return record

    handles = [shapes_only.get_submodule(name).register_forward_hook(recorder(name)) for name in layers]
    tracker = _GridTracker()
    clip = torch.empty((1, 3, *input_size), device="meta")
    tracker.place(clip, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    try:
        with torch.inference_mode(), tracker:
            shapes_only(clip)
    finally:
        for handle in handles:
            handle.remove()
    grids = {}
    for name in layers:
        if name not in outputs or id(outputs[name]) not in tracker.placed:
            raise ModelError(f"Layer {name!r} does not give a (N, C, T, H, W) feature map of the clip.")
        _, stride, offset = tracker.placed[id(outputs[name])]
        grids[name] = CellGrid(size=_triple(outputs[name].shape[2:]), stride=stride, offset=offset)
    return grids


def without_storage(network: nn.Module) -> nn.Module:
    """Return a copy on the meta device, without copying the weights first."""
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(network, memo)


Triple = tuple[float, float, float]
_CONVOLUTIONS = ("conv3d",)
_CONVOLUTION_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_POOLINGS = ("max_pool3d", "_max_pool3d", "avg_pool3d")
_POOLING_ARGUMENTS = ("input", "kernel_size", "stride", "padding", "dilation")


class _GridTracker(TorchFunctionMode):
    """Follows stride and offset from tensor to tensor while a network runs.

    Convolutions, poolings and padding change them; everything else that keeps (T, H, W) hands them on.
    """

    def __init__(self) -> None:
        super().__init__()
        # Keyed by id, which is only unique while the tensor lives: so the tensor is kept, too (meta: no storage).
        self.placed: dict[int, tuple[Tensor, Triple, Triple]] = {}

    def place(self, tensor: Tensor, stride: Triple, offset: Triple) -> None:
        self.placed[id(tensor)] = (tensor, stride, offset)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or result.ndim != 5:
            return result
        source = next((t for t in _tensors([*args, *kwargs.values()]) if id(t) in self.placed), None)
        if source is None:
            return result
        _, stride, offset = self.placed[id(source)]
        name = getattr(func, "__name__", "")
        if name in _CONVOLUTIONS or name in _POOLINGS:
            step, shift = _window(name, args, kwargs)
            offset = _triple(o + s * d for o, s, d in zip(offset, stride, shift, strict=True))
            stride = _triple(s * k for s, k in zip(stride, step, strict=True))
        elif func is F.pad:
            pads = args[1] if len(args) > 1 else kwargs["pad"]
            before = (0, 0, 0, *pads[-2::-2])[-3:]  # pad lists the last axis first: (left, right, top, bottom, ...)
            offset = _triple(o - s * b for o, s, b in zip(offset, stride, before, strict=True))
        elif result.shape[2:] != source.shape[2:]:
            return result
        self.place(result, stride, offset)
        return result


def _window(name: str, args: Any, kwargs: Any) -> tuple[Triple, Triple]:
    """Stride of a sliding window, and how far its centre is from its first input cell."""
    if name in _CONVOLUTIONS:
        given = {**dict(zip(_CONVOLUTION_ARGUMENTS, args, strict=False)), **kwargs}
        kernel = _triple(given["weight"].shape[2:])
        stride = _triple(given.get("stride", 1))
    else:
        given = {**dict(zip(_POOLING_ARGUMENTS, args, strict=False)), **kwargs}
        kernel = _triple(given["kernel_size"])
        stride = _triple(given.get("stride") or given["kernel_size"])
    padding = given.get("padding", 0)
    dilation = _triple(1 if name == "avg_pool3d" else given.get("dilation", 1))
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    before = [r // 2 for r in reach] if padding == "same" else [0, 0, 0] if padding == "valid" else _triple(padding)
    return stride, _triple(r / 2 - p for r, p in zip(reach, before, strict=True))


def _triple(value: Any) -> Any:
    """A number or three numbers -> three numbers."""
    if isinstance(value, (int, float)):
        return (value, value, value)
    return tuple(value)


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among arguments, lists of tensors included (torch.cat)."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(item for item in value if isinstance(item, Tensor))
    return found
