"""Overlays as pictures for slides, chats and papers: a strip of frames, and an animation that loops."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nonlocal_video.attention.maps import AttentionMaps, evenly_spaced_frames
from nonlocal_video.errors import UsageError

FRAMES_IN_STRIP = 8
STRIP_SIDE = 320
"""Longer side of a frame in a strip, in pixels."""
ANIMATION_SIDE = 400
"""Longer side of an animation, in pixels."""
_GAP = 4
_LEAST_MILLISECONDS = 50  # shorter ones are slowed down by some viewers; frames are left out instead
_TICK_MILLISECONDS = {".gif": 10, ".webp": 1}
_MAX_TICKS = {".gif": (1 << 16) - 1, ".webp": (1 << 24) - 1}  # of one frame
_WEBP_QUALITY = 80
_TEXT_LINES = 16  # in a frame's height: still legible at this size


def write_strip(maps: AttentionMaps, path: str | os.PathLike[str]) -> Path:
    """Write evenly spaced overlay frames side by side as a PNG.

    Args:
        maps: Maps to draw.
        path: File to write, ending in .png.

    Raises:
        UsageError: The path does not end in .png.
    """
    if Path(path).suffix.lower() != ".png":
        raise UsageError(f"path = {os.fspath(path)!r} should end in .png; a strip is written as PNG.")
    frames = [_drawn(maps, index, STRIP_SIDE) for index in evenly_spaced_frames(maps.frame_of_time, FRAMES_IN_STRIP)]
    width, height = frames[0].size
    strip = Image.new("RGB", (len(frames) * (width + _GAP) - _GAP, height), "white")
    for number, frame in enumerate(frames):
        strip.paste(frame, (number * (width + _GAP), 0))
    strip.save(path, "PNG")
    return Path(path)


def write_animation(maps: AttentionMaps, path: str | os.PathLike[str]) -> Path:
    """Write the overlay as an endless animation, as long and as fast as the clip.

    Above 20 frames per second some frames are left out.

    Args:
        maps: Maps to draw.
        path: File to write, ending in .gif or .webp.

    Raises:
        UsageError: The path has another ending.
    """
    kind = Path(path).suffix.lower()
    if kind not in (".gif", ".webp"):
        raise UsageError(f"path = {os.fspath(path)!r} should end in .gif or .webp.")
    milliseconds = 1000 * maps.playback_seconds / len(maps)
    step = max(1, int(np.ceil(_LEAST_MILLISECONDS / milliseconds - 1e-6)))
    chosen = range(0, len(maps), step)
    # The last one is shown for what is left of the clip. Times are rounded, not durations, whose errors would add up.
    tick = _TICK_MILLISECONDS[kind]
    times = [tick * round(milliseconds * index / tick) for index in (*chosen, len(maps))]
    durations = [min(end - start, tick * _MAX_TICKS[kind]) for start, end in itertools.pairwise(times)]
    frames = [_drawn(maps, index, ANIMATION_SIDE) for index in chosen]
    options: dict[str, Any] = {"quality": _WEBP_QUALITY, "method": 2} if kind == ".webp" else {"optimize": False}
    frames[0].save(
        path, kind[1:].upper(), save_all=True, append_images=frames[1:], duration=durations, loop=0, **options
    )
    return Path(path)


def _drawn(maps: AttentionMaps, index: int, long_side: int) -> Image.Image:
    image = Image.fromarray(maps.draw_frame(index, lines=_TEXT_LINES))
    image.thumbnail((long_side, long_side))
    return image
