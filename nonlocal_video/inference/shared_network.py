"""A network that several threads use in turn, and the only place that hooks it, copies it or switches its gradients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from nonlocal_video.attention.class_evidence import grad_cam
from nonlocal_video.attention.geometry import CellGrid, layer_grids


class SharedNetwork:
    """A network and its lock.

    Hooks, copies and `requires_grad` belong to the whole network, not to a thread: a thread that copied it while
    another one's hooks hung on it copied those and what they hold, and a forward pass ran the other's hooks.

    Attributes:
        network: The network; whoever runs it, or a part of it, does so inside `taken`.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._lock = threading.RLock()
        self._grids: dict[tuple[tuple[int, int, int], str], CellGrid] = {}

    @contextmanager
    def taken(self) -> Iterator[Any]:
        """Hold the network for this thread, which may take it again inside; gives the network."""
        with self._lock:
            yield self.network

    def grid(self, layer: str, input_size: tuple[int, int, int]) -> CellGrid:
        """Return the cell grid of a layer for an input of (T, H, W), computed once.

        Raises:
            ModelError: There is no such layer, or its output is not a feature map of the input.
        """
        key = input_size, layer
        with self._lock:
            if key not in self._grids:
                self._grids[key] = layer_grids(self.network, input_size, [layer])[layer]
            return self._grids[key]

    def grad_cam(self, clip: Tensor, layer: str, class_index: int) -> Tensor:
        """Return Grad-CAM of one class at one layer, (T', H', W'); see `class_evidence.grad_cam`."""
        with self._lock:
            return grad_cam(self.network, clip, layer, class_index)
