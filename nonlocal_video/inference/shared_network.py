"""A network shared by threads; only this module hooks it, copies it or changes `requires_grad`."""

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
from nonlocal_video.models.token_layout import layout_of


class SharedNetwork:
    """A network and its lock.

    Hooks, copies and `requires_grad` affect the whole network, not one thread: without the lock, a thread could copy
    the hooks of another with what they hold, or run them in its forward pass.

    Attributes:
        network: The network; run it and its parts inside `taken` only.
        failed: Error of a failed device, which is not used any more; None before.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network = network
        self.failed: DeviceError | None = None
        self._device = device
        self._lock = threading.RLock()
        self._grids: dict[tuple[tuple[int, int, int], str], CellGrid] = {}

    @contextmanager
    def taken(self) -> Iterator[Any]:
        """Lock the network for this thread and yield it; reentrant. The block runs in float32.

        Raises:
            VideoError: `out_of_memory`, if memory runs out in the block.
            DeviceError: The device fails in the block, or failed before.
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

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Note a failure of the device in the block, such as one while clips are copied there ahead of the network.

        Raises:
            DeviceError: The device fails in the block.
        """
        try:
            yield
        except DeviceError as error:
            self.failed = self.failed or error
            raise

    def grid(self, layer: str, input_size: tuple[int, int, int]) -> CellGrid:
        """Return the cell grid of a layer for an input of (T, H, W); it is cached.

        Raises:
            ModelError: The layer does not exist, or its output is not a feature map of the input.
        """
        key = input_size, layer
        with self._lock:
            if key not in self._grids:
                layout = layout_of(self.network, layer)
                self._grids[key] = (
                    layer_grids(self.network, input_size, [layer])[layer]
                    if layout is None
                    else CellGrid(layout.size, layout.patch, layout.offset)
                )
            return self._grids[key]

    def grad_cam(self, clip: Tensor, layer: str, class_index: int) -> Tensor:
        """Return the Grad-CAM of one class at one layer, (T', H', W'); see `class_evidence.grad_cam`."""
        with self.taken():
            return grad_cam(self.network, clip, layer, class_index)
