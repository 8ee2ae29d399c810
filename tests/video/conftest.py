from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numbered_clips
import pytest

from nonlocal_video.video import VideoReader


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every clip of `numbered_clips`."""
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        pytest.fail("these tests need ffmpeg and ffprobe: apt-get install ffmpeg")
    folder = tmp_path_factory.mktemp("numbered_clips")
    numbered_clips.make(folder)
    return folder


@pytest.fixture(scope="module")
def readers() -> Iterator[dict[str, VideoReader]]:
    """A reader for each choice of the decoder, shared by a file's tests: a process for each test would cost more."""
    with VideoReader() as auto, VideoReader(decoder="pyav") as pyav, VideoReader(decoder="decord") as decord:
        yield {"auto": auto, "pyav": pyav, "decord": decord}


@pytest.fixture(scope="module")
def reader(readers: dict[str, VideoReader]) -> VideoReader:
    """The usual one of `readers`. Files whose tests are about the process have a fixture of this name."""
    return readers["auto"]
