"""Operations and bytes of one forward pass, counted on the meta device: shapes only, nothing is allocated."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from nonlocal_video.models.meta import OperatorMode, meta_copy


@dataclass(frozen=True)
class RunCount:
    """Operations and memory of one forward pass."""

    macs: int
    """Multiply-accumulates of convolutions, linear layers and matrix products, each two floating-point operations."""
    macs_by_module: dict[str, int]
    """Return counts by dotted module name, children included, without modules that have none."""
    peak_bytes: int
    """Peak size of the live tensors: the input, activations and the intermediate tensors of layers, without weights and
    without the scratch space inside operators."""
    held_bytes: int
    """Size of the tensors alive after the pass: the output, and with gradients all that the backward pass needs."""


def count_run(
    network: nn.Module, input_shape: Sequence[int], *, dtype: torch.dtype = torch.float32, gradients: bool = False
) -> RunCount:
    """Count the operations and bytes of one forward pass in eval mode.

    Args:
        network: A module that takes one tensor; it does not change.
        input_shape: Shape of that tensor, batch first.
        dtype: Type of the weights and the input.
        gradients: Whether to keep what a backward pass needs.
    """
    tensors = [*network.parameters(), *network.buffers()]
    ready = not any(module.training for module in network.modules()) and all(
        tensor.is_meta and (tensor.dtype == dtype or not tensor.is_floating_point()) for tensor in tensors
    )
    shapes = network if ready else meta_copy(network).to(dtype)
    tracker = _LiveBytes(known=[*shapes.parameters(), *shapes.buffers()])
    macs = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mv: _matrix_vector_flops})
    with torch.set_grad_enabled(gradients), macs, tracker, _FusedAttentionHoldsNoMap(tracker):
        clip = torch.empty(tuple(input_shape), dtype=dtype, device="meta")
        output = shapes(clip)
        held_bytes = tracker.live_bytes
    del output
    root = type(network).__name__
    by_module = {
        name.removeprefix(f"{root}."): sum(operations.values()) // 2
        for name, operations in macs.get_flop_counts().items()
        if name not in ("Global", root)
    }
    return RunCount(
        macs=macs.get_total_flops() // 2, macs_by_module=by_module, peak_bytes=tracker.peak_bytes, held_bytes=held_bytes
    )


def _matrix_vector_flops(matrix: Sequence[int], _vector: Sequence[int], **_: Any) -> int:
    """Count a matrix-vector product, which torch's counter does not know."""
    return 2 * math.prod(matrix)


class _LiveBytes(OperatorMode):
    """Counter of the bytes of storages that operators created and that are still alive.

    Args:
        known: Tensors that existed before; views of them are not counted.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._paused = False
        # References, so that their ids are not reused.
        self._known = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in known)}
        # An entry is removed when its storage is freed, before its id can be reused.
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._paused:
            self.add(result)
        return result

    def add(self, result: Any) -> None:
        """Start counting the new tensors in an operator's result."""
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._add(tensor)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count tensors that are created here."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive or key in self._known:
            return

        def freed(_reference: Any) -> None:
            del self._alive[key]
            self.live_bytes -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)


class _FusedAttentionHoldsNoMap(TorchFunctionMode):
    """Keeps the map of fused attention out of the byte count.

    On the meta device PyTorch expands fused attention to two products with the whole map between them. The operations
    are counted that way, but a fused kernel never holds the map.
    """

    def __init__(self, tracker: _LiveBytes) -> None:
        super().__init__()
        self.tracker = tracker

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with self.tracker.paused():
            result = func(*args, **(kwargs or {}))
        self.tracker.add(result)
        return result
