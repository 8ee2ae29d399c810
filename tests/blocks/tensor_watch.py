"""Sizes of the tensors that a piece of code makes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class TensorWatch(TorchDispatchMode):
    """Watches every operation inside it, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        """Entries of the largest tensor made so far."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result
