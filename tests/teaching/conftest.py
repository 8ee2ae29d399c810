"""A run that was taught three colours by four clips each."""

from __future__ import annotations

from pathlib import Path

import pytest
from colour_clips import COLOURS, write_colour

from nonlocal_video.teaching.api import TaughtRun, teach


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    for number, (label, colour) in enumerate(COLOURS.items()):
        for clip in range(4):
            write_colour(folder / label / f"{clip}.mp4", colour, 10 * number + clip)
    return folder


@pytest.fixture(scope="module")
def run(examples: Path, tiny_model: Path, tmp_path_factory) -> TaughtRun:
    return teach(examples, output=tmp_path_factory.mktemp("runs") / "colours", model=tiny_model, device="cpu")
