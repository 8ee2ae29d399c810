"""Fixtures of the tests of features."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Iterator[Recognizer]:
    """The small model, on the CPU."""
    with load(tiny_model, device="cpu") as loaded:
        yield loaded


@pytest.fixture
def clips(clip_folder: Path, tmp_path: Path) -> Path:
    """A copy of the small videos that a test may change."""
    return Path(shutil.copytree(clip_folder, tmp_path / "clips"))
