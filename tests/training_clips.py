"""Small clips that are all different, and copies of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.encode import write_video

SPEC = InputSpec(
    num_frames=8, frames_per_second=10.0, short_side=48, crop=40, mean=(0.45, 0.4, 0.5), std=(0.2, 0.25, 0.3)
)
"""The view of the training tests: 0.8 s."""


def write_clip(path: Path, seed: int, *, num_frames: int = 20) -> None:
    """96 x 72 pixels at 10/s: coloured patches that change from frame to frame."""
    random = np.random.default_rng(seed)
    patches = random.integers(0, 256, (num_frames, 6, 8, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (np.kron(patch, np.ones((12, 12, 1), np.uint8)) for patch in patches), fps=10)


def remux(source: Path, target: Path) -> None:
    """The same packets in another container."""
    import av  # late: machines that only compute have no decoder

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
