"""What reaches the network: only what it looks at, each frame once, and beside its work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nonlocal_video as nlv
from nonlocal_video.inference import loading
from nonlocal_video.inference.loading import ClipLoader, ClipRequest
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video import _wire
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.region import Region
from nonlocal_video.video.transforms import cut, resize_region, spatial_views

SPEC = InputSpec(num_frames=4, frames_per_second=8.0, short_side=40, crop=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
REGION = Region(0.5, 0.25, 1.0, 0.75)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each picture that comes through a pipe."""
    sizes: list[int] = []
    read = _wire.read_exactly

    def counted(pipe: Any, view: memoryview) -> None:
        if len(view) > 1000:
            sizes.append(len(view))
        read(pipe, view)

    monkeypatch.setattr(_wire, "read_exactly", counted)
    return sizes


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_a_part_of_the_frames_is_that_part(clip_folder: Path, received: list[int], decoder: Any) -> None:
    path, times = clip_folder / "a.mp4", [0.0, 0.3, 0.1]
    with VideoReader(decoder=decoder) as reader:
        whole = reader.read(path, times)
        height, width = whole.frames_thwc.shape[1:3]
        received.clear()
        box = (3, 5, height - 4, width // 2)
        with reader.stream(path, times, chunk_frames=2, box=box) as stream:
            part = np.concatenate([chunk.frames_thwc for chunk in stream])
        np.testing.assert_array_equal(part, whole.frames_thwc[:, 3 : height - 4, 5 : width // 2])
        assert received == [3 * (height - 7) * (width // 2 - 5)] * 3
        for bad in ((0, 0, height + 1, width), (4, 0, 4, width), (-1, 0, 2, 2)):
            with pytest.raises(nlv.UsageError, match="part of this video's frames"):
                reader.stream(path, times, box=bad)
        assert len(reader.read(path, times).frames_thwc) == 3, "the reader serves on"


@pytest.mark.parametrize("source", ["file", "array"])
@pytest.mark.parametrize("region", [None, REGION])
@pytest.mark.parametrize("antialias", [True, False])
def test_squares_are_cut_out_of_whole_frames_bit_for_bit(
    clip_folder: Path, received: list[int], source: str, region: Region | None, antialias: bool
) -> None:
    from dataclasses import replace

    spec = replace(SPEC, antialias=antialias)
    path = clip_folder / "a.mp4"
    request = ClipRequest(ViewCount(2, 3), region=region)
    with VideoReader() as reader:
        every = np.arange(reader.probe(path).num_frames) / reader.probe(path).fps
        given: Any = path if source == "file" else reader.read(path, every).frames_thwc
        received.clear()
        clip = ClipLoader(reader).load(given, spec, request, originals=None)
        pixels = sum(received) // 3
        drawn: list[Any] = []
        kept = ClipLoader(reader).load(given, spec, request, originals=drawn)
    whole = torch.from_numpy(np.stack(drawn))
    height, width = whole.shape[1:3]
    assert len(whole) == len(clip.seconds)
    crops = spatial_views(height, width, short_side=40, crop=32, num_crops=3, region=region)
    assert clip.crops == crops
    for square, same, crop in zip(clip.squares, kept.squares, crops, strict=True):
        for frame, got in zip(whole, square, strict=True):  # one by one: as many at a time as fit make no difference
            resized = resize_region(frame[None], crop, antialias=antialias)
            assert torch.equal(cut(resized, crop)[0], got)
        assert torch.equal(square, same)
    if source == "file":
        share = 0.25 if region else 1.0
        assert pixels == pytest.approx(share * len(whole) * height * width, rel=0.05)


def test_large_frames_come_in_small_chunks() -> None:
    info = VideoInfo("mp4", "h264", 1920, 1080, 0, 99, 25.0, 0.0, 4.0, False, "pyav")
    place = spatial_views(1080, 1920, short_side=256, crop=256)[0]
    assert 6e6 < 3 * 1920 * 1080 * loading._chunk_frames(info, place) <= 32e6  # what malloc keeps for the next
