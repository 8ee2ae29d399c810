"""Clips of one colour each, which a random network tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nonlocal_video.video.encode import write_video

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def write_colour(path: Path, colour: tuple[int, int, int], seed: int, *, num_frames: int = 20) -> None:
    """96 x 72 pixels at 10/s: patches of about one colour."""
    random = np.random.default_rng(seed)
    patches = np.clip(np.array(colour) + random.integers(-40, 41, (num_frames, 6, 8, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (np.kron(patch, np.ones((12, 12, 1), np.uint8)) for patch in patches), fps=10)
