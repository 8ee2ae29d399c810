"""Early copies of clips to the device of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from nonlocal_video.inference.device_errors import device_failed, failure_of
from nonlocal_video.inference.preprocessing import LoadedClip


def on_device(clip: LoadedClip, device: torch.device) -> LoadedClip:
    """Return the clip with its distinct frames on the device, as uint8; views are indexed and normalised there.

    The copy is asynchronous; later work on the same stream waits for it. If the device is out of memory, the clip
    stays where it is, and the network gets one view at a time.

    Args:
        clip: Loaded clip; frames in pinned memory are copied while the device computes.
        device: Device of the network.

    Raises:
        DeviceError: The device has failed.
    """
    if clip.frames.device == device:
        return clip
    frames = if_room(device, lambda: clip.frames.to(device, non_blocking=True))
    return clip if frames is None else replace(clip, frames=frames)


def if_room(device: torch.device, make: Callable[[], Tensor]) -> Tensor | None:
    """Return what a function makes on a device; None if memory runs out.

    Raises:
        DeviceError: The device has failed.
    """
    try:
        return make()
    except (RuntimeError, MemoryError) as error:
        failure = failure_of(error)
        if failure == "device":
            raise device_failed(device, error) from None
        if failure is None:
            raise
    return None
