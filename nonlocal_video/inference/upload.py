"""Early copies of clips to the device of the network."""

from __future__ import annotations

from dataclasses import replace

import torch

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
    if all(square.device == device for square in clip.squares):
        return clip
    try:
        return replace(clip, squares=tuple(square.to(device, non_blocking=True) for square in clip.squares))
    except (RuntimeError, MemoryError) as error:
        failure = failure_of(error)
        if failure == "device":
            raise device_failed(device, error) from None
        if failure is None:
            raise
    return clip
