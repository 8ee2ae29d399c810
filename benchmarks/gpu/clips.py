"""Clips and a small network made by formula, and frames as arrays where no video decoder is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.video.info import FrameChunk, VideoInfo

FRAMES_PER_SECOND = 25.0


def can_decode() -> bool:
    """Whether PyAV is installed, without which no video is read."""
    return importlib.util.find_spec("av") is not None


def moving_pattern(seed: int, *, seconds: float, width: int, height: int) -> NDArray[np.uint8]:
    """Return uint8 frames (T, height, width, 3): waves that wander, in colours and directions of the seed's."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * FRAMES_PER_SECOND))[:, None, None] / FRAMES_PER_SECOND
    y, x = np.mgrid[:height, :width] / height
    channels = []
    for _ in range(3):
        along_x, along_y, speed, phase = random.uniform(-8, 8, 4)
        channels.append(np.sin(2 * np.pi * (along_x * x + along_y * y + speed * t / 4) + phase))
    return np.uint8(127.5 + 110 * np.stack(channels, axis=-1))


def write_clips(
    folder: Path, names: Sequence[str], *, seconds: float, width: int, height: int, frames: str
) -> list[str]:
    """Write a clip for each name, as H.264 or, with frames = "arrays", as NumPy's compressed arrays under that name."""
    paths = []
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures = moving_pattern(seed, seconds=seconds, width=width, height=height)
        if frames == "arrays":
            with open(path, "wb") as file:
                np.savez_compressed(file, frames=pictures, fps=FRAMES_PER_SECOND)
        else:
            from nonlocal_video.video.encode import write_video

            write_video(path, iter(pictures), fps=FRAMES_PER_SECOND)
        paths.append(str(path))
    return paths


def read_arrays_for_videos() -> None:
    """Let `VideoReader` of this process and its forks read what `write_clips` wrote as arrays.

    For machines without a decoder: all but the decoding is what answers. No child process decodes, and the time that
    reading takes is zlib's.
    """
    from nonlocal_video.video.decode import VideoReader

    def probe(self: VideoReader, path: Any) -> VideoInfo:
        return _info(*_read(path))

    @contextmanager
    def stream(
        self: VideoReader, path: Any, times_seconds: Sequence[float], *, chunk_frames: int = 16, box: Any = None
    ) -> Any:
        yield _Stream(*_read(path), times_seconds, chunk_frames, box)

    VideoReader.probe = probe  # type: ignore[method-assign]
    VideoReader.stream = stream  # type: ignore[method-assign,assignment]


class _Stream:
    """The counterpart of `FrameStream`; a box is the top, left, bottom and right edge of what is given."""

    def __init__(
        self, frames: NDArray[np.uint8], fps: float, times_seconds: Sequence[float], chunk_frames: int, box: Any
    ) -> None:
        self.info = _info(frames, fps)
        shown = np.floor(np.asarray(times_seconds) * fps + 1e-6).astype(np.int64)
        needed, self.frame_of_time = np.unique(np.clip(shown, 0, len(frames) - 1), return_inverse=True)
        top, left, bottom, right = box or (0, 0, *frames.shape[1:3])
        self.pts_seconds = needed / fps
        self._frames, self._chunk_frames = frames[needed, top:bottom, left:right], chunk_frames

    def __len__(self) -> int:
        return len(self.pts_seconds)

    def __iter__(self) -> Iterator[FrameChunk]:
        for start in range(0, len(self), self._chunk_frames):
            part = slice(start, start + self._chunk_frames)
            yield FrameChunk(self._frames[part], self.pts_seconds[part])


def _read(path: Any) -> tuple[NDArray[np.uint8], float]:
    with np.load(path) as kept:
        return kept["frames"], float(kept["fps"])


def _info(frames: NDArray[np.uint8], fps: float) -> VideoInfo:
    return VideoInfo(
        container="none",
        codec="none",
        width=frames.shape[2],
        height=frames.shape[1],
        rotation_degrees=0,
        num_frames=len(frames),
        fps=fps,
        start_seconds=0.0,
        duration_seconds=len(frames) / fps,
        has_edit_list=False,
        decoder="memory",
    )


def small_model(path: Path, *, width: int = 4, num_frames: int = 8, crop: int = 40) -> None:
    """Save a random network with a non-local block; its answers mean nothing.

    It has no max-pooling, whose gradients have no algorithm on CUDA that gives the same bits every time.
    """
    from nonlocal_video.blocks.config import NonLocalConfig
    from nonlocal_video.models.card import InputSpec, ModelCard
    from nonlocal_video.models.checkpoint import build_network, save_checkpoint

    card = ModelCard(
        name="miniature",
        architecture="resnet3d",
        config={
            "num_classes": 5,
            "width": width,
            "blocks_per_stage": [1, 1, 1, 1],
            "stem_pool": None,
            "nonlocal_blocks": {"layer3.0": asdict(NonLocalConfig(inter_channels=width, sub_sample=False))},
        },
        input=InputSpec(
            num_frames=num_frames,
            frames_per_second=10.0,
            short_side=crop + 8,
            crop=crop,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        labels=tuple(f"action {index}" for index in range(5)),
        explain_layer="layer3.nonlocal0",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_network(card)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    save_checkpoint(path, network, card, dtype=torch.float32)
