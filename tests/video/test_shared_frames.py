"""Large frames come through shared memory: the same bits as through the pipe, and nothing of them in it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nonlocal_video.errors import VideoError
from nonlocal_video.inference.preprocessing import ClipLoader
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video import _wire
from nonlocal_video.video._shared_frames import SharedFrames
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video
from nonlocal_video.video.region import Region

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")
NUM_FRAMES = 12
TIMES = [(number + 0.5) / 10 for number in range(NUM_FRAMES)]
SPEC = InputSpec(num_frames=NUM_FRAMES, frames_per_second=10.0, short_side=64, crop=48, mean=(0, 0, 0), std=(1, 1, 1))


def picture(number: int, height: int = 1080, width: int = 1920) -> NDArray[np.uint8]:
    """Coarse noise, another in each frame."""
    coarse = np.random.default_rng(number).integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 40, axis=0), 40, axis=1)


@pytest.fixture(scope="module")
def large_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More frames of 1080p than fit into the shared memory."""
    path = tmp_path_factory.mktemp("large") / "clip.mp4"
    write_video(path, (picture(number) for number in range(NUM_FRAMES)), fps=10)
    return path


@pytest.fixture
def through_the_pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Begins to count the bytes of messages that are read."""

    def count() -> list[int]:
        sizes: list[int] = []
        read = _wire.read_exactly
        monkeypatch.setattr(_wire, "read_exactly", lambda pipe, view: (sizes.append(len(view)), read(pipe, view)))
        return sizes

    return count


def without_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedFrames, "create", classmethod(lambda cls: None))


@pytest.mark.slow
def test_frames_are_those_of_the_pipe(
    large_clip: Path, through_the_pipe: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = through_the_pipe()
    with VideoReader() as reader, reader.stream(large_clip, TIMES, chunk_frames=5) as stream:
        found = np.concatenate([chunk.frames_thwc for chunk in list(stream)])  # all are kept until the last is there
    assert found.shape == (NUM_FRAMES, 1080, 1920, 3)
    assert sum(sizes) < 100_000
    assert len({frame.tobytes()[:10_000] for frame in found}) == NUM_FRAMES

    sizes.clear()
    without_sharing(monkeypatch)
    with VideoReader() as reader:
        wanted = reader.read(large_clip, TIMES).frames_thwc
    assert sum(sizes) >= wanted.nbytes
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("region", [None, Region(0.1, 0.05, 0.9, 0.95)])
@pytest.mark.slow
def test_tensors_are_those_of_the_pipe(
    region: Region | None, large_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def squares() -> torch.Tensor:
        with VideoReader() as reader:
            clip = ClipLoader(reader).load(large_clip, SPEC, ClipRequest(region=region), originals=None)
        return clip.network_input(0, 0)

    found = squares()
    without_sharing(monkeypatch)
    assert torch.equal(found, squares())


def test_small_frames_stay_in_the_pipe(clip_folder: Path, through_the_pipe: Callable[[], list[int]]) -> None:
    sizes = through_the_pipe()
    with VideoReader() as reader:
        frames = reader.read(clip_folder / "a.mp4", [0.1, 0.2]).frames_thwc
    assert sum(sizes) >= frames.nbytes


def test_an_error_after_some_frames_leaves_the_process_in_step(large_clip: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    content = bytearray(large_clip.read_bytes())
    start = content.index(b"mdat") + 4
    middle = start + (len(content) - start) // 2
    content[middle : middle + 40_000] = bytes(40_000)
    broken.write_bytes(content)
    with VideoReader(decoder="pyav") as reader:
        wanted = reader.read(large_clip, TIMES[:7]).frames_thwc
        process: Any = reader._process
        with reader.stream(broken, TIMES, chunk_frames=1) as stream:
            next(stream)
            with pytest.raises(VideoError):
                list(stream)
        found = reader.read(large_clip, TIMES[:7]).frames_thwc
        assert reader._process is process
    assert np.array_equal(found, wanted)


def test_the_decoding_process_cannot_take_the_memory_away() -> None:
    shared = SharedFrames.create()
    assert shared is not None
    with pytest.raises(PermissionError):
        os.ftruncate(shared.descriptor, 0)
    shared.close_descriptor()
    assert not shared.slot(0, 2 << 20).flags.writeable
    shared.close_descriptor()  # does nothing


def test_room_for_frames_of_every_size() -> None:
    shared = SharedFrames.create()
    assert shared is not None
    shared.close_descriptor()
    sizes = {"1080p": 1920 * 1080 * 3, "4K": 3840 * 2160 * 3, "8K": 7680 * 4320 * 3, "small": 320 * 240 * 3}
    assert {name: shared.num_slots(size) for name, size in sizes.items()} == {"1080p": 4, "4K": 2, "8K": 0, "small": 0}
    for name in ("1080p", "4K"):
        slots = [shared.slot(number, sizes[name]) for number in range(shared.num_slots(sizes[name]))]
        starts = sorted(slot.ctypes.data for slot in slots)
        assert all(after - before >= sizes[name] for before, after in itertools.pairwise(starts))
        assert len(slots[-1]) == sizes[name]
