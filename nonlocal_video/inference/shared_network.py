"""A network that several threads use in turn, and the only place that hooks it, copies it or switches its gradients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nonlocal_video.attention.class_evidence import grad_cam
from nonlocal_video.attention.geometry import CellGrid, layer_grids
from nonlocal_video.errors import DeviceError
from nonlocal_video.inference.device_errors import translated
from nonlocal_video.inference.precision import arithmetic, turn


class SharedNetwork:
    """A network and its lock.

    Hooks, copies and `requires_grad` belong to the whole network, not to a thread: a thread that copied it while
    another one's hooks hung on it copied those and what they hold, and a forward pass ran the other's hooks.

    Attributes:
        network: The network; it, and every part of it, is run inside `taken` only.
        failed: The error of a device that has failed; nothing is asked of it any more.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network = network
        self.failed: DeviceError | None = None
        self._device = device
        self._lock = threading.RLock()
        self._grids: dict[tuple[tuple[int, int, int], str], CellGrid] = {}

    @contextmanager
    def taken(self) -> Iterator[Any]:
        """Hold the network for this thread, which may take it again inside; gives the network. Inside is float32.

        Raises:
            VideoError: `out_of_memory`, if memory runs out inside.
            DeviceError: The device fails inside, or has failed before.
        """
        with turn(self._device), self._lock:
            if self.failed is not None:
                raise self.failed
            try:
                with translated(self._device, "what this takes"), arithmetic("float32", self._device):
                    yield self.network
            except DeviceError as error:
                self.failed = error
                raise

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
        with self.taken():
            return grad_cam(self.network, clip, layer, class_index)
