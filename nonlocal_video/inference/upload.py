"""Move clips to the device that computes, before the network asks for them."""

from __future__ import annotations

from dataclasses import replace

import torch

from nonlocal_video.inference.device_errors import device_failed, failure_of
from nonlocal_video.inference.preprocessing import LoadedClip


def on_device(clip: LoadedClip, device: torch.device) -> LoadedClip:
    """Return the clip with its distinct frames on the device, as uint8: views are indexed and normalised there.

    The copy is only begun, so that the calling thread continues; later work on the same stream waits for it.
    Where the device has no room the clip stays where it is, and the network takes it a view at a time.

    Args:
        clip: As it was loaded; frames in pinned memory are copied beside the device's work.
        device: That computes.

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
