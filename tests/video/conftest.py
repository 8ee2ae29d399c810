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


@pytest.fixture
def reader() -> Iterator[VideoReader]:
    with VideoReader() as reader:
        yield reader
