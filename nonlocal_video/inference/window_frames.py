"""The frames that sliding windows share: decoded once, and copied to the network's device once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nonlocal_video.inference.upload import if_room


class WindowFrames:
    """Packed frames of the windows that are still to come, on the CPU and, where the network is elsewhere, there too.

    A window shows some frames of those before it and some new ones: only the new ones are copied to the device,
    asynchronously from pinned memory, and the window is put together there. Each frame of a video is copied once,
    however many windows show it.

    A frame is kept until `drop`, on the device as well: beside the windows that were given out, the device holds no
    more frames than the CPU (`windows.MAX_HELD_BYTES`). If it is out of memory, a window stays on the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        """Begin without frames.

        Args:
            device: Device of the network; on a CUDA device windows are copied from pinned memory.
        """
        self._device = device
        self._held: dict[int, NDArray[np.uint8]] = {}
        self._on_device: dict[int, Tensor] = {}

    def add(self, number: int, frame: NDArray[np.uint8]) -> None:
        """Keep a frame, uint8 (H, W, 3), by its number."""
        self._held[number] = frame

    def window(self, numbers: Sequence[int]) -> Tensor:
        """Return the frames with these numbers, uint8 (K, H, W, 3), on the device if it has room.

        Raises:
            DeviceError: The device has failed.
        """
        if self._device.type != "cpu":
            found = if_room(self._device, lambda: self._window_there(numbers))
            if found is not None:
                return found
        return self._stacked(numbers, pinned=False)

    def drop(self, numbers: Sequence[int]) -> None:
        """Forget frames that no further window needs."""
        for number in numbers:
            del self._held[number]
            self._on_device.pop(number, None)

    def _window_there(self, numbers: Sequence[int]) -> Tensor:
        new = [number for number in numbers if number not in self._on_device]
        if new:
            frames = self._stacked(new, pinned=self._device.type == "cuda")
            for number, frame in zip(new, frames, strict=True):  # as a part of one copy it would keep the others
                self._on_device[number] = frame.to(self._device, non_blocking=True)
        return torch.stack([self._on_device[number] for number in numbers])

    def _stacked(self, numbers: Sequence[int], *, pinned: bool) -> Tensor:
        """Return frames as one tensor on the CPU.

        NumPy copies in this thread; PyTorch would start a team of threads in every thread that reads windows.
        """
        frames = [self._held[number] for number in numbers]
        if not pinned:
            return torch.from_numpy(np.stack(frames))
        room = torch.empty(len(frames), *frames[0].shape, dtype=torch.uint8, pin_memory=True)
        np.stack(frames, out=room.numpy())
        return room
