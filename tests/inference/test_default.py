"""The embedded default on real clips."""

from __future__ import annotations

from pathlib import Path

import pytest

import nonlocal_video as nlv

pytestmark = pytest.mark.slow


def test_most_real_clips_are_recognised(data_folder: Path) -> None:
    clips = sorted((data_folder / "clips").glob("*/*"))
    assert len(clips) == 12
    right = in_top_5 = 0
    with nlv.load("default", device="cpu") as recognizer:
        for clip in clips:
            label = clip.parent.name.replace("_", " ")
            top = [scored.label for scored in recognizer.classify(clip).top(5)]
            right += top[0] == label
            in_top_5 += label in top
    assert right >= 9
    assert in_top_5 >= 11
