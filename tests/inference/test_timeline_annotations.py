"""A timeline as a file of an annotation tool: its segments with a class, read back by this project's readers."""

from __future__ import annotations

from pathlib import Path

import pytest

import nonlocal_video as nlv
from nonlocal_video.inference.timeline_files import ANNOTATION_TOOLS, write_timeline


@pytest.fixture(scope="module")
def timeline(tiny_model: Path, clip_folder: Path) -> nlv.Timeline:
    with nlv.load(tiny_model, device="cpu") as recognizer:
        return recognizer.timeline(clip_folder / "a.mp4", context="none")


@pytest.mark.parametrize("ending", ANNOTATION_TOOLS)
def test_its_segments_are_read_back(timeline: nlv.Timeline, tmp_path: Path, ending: str) -> None:
    said: list[str] = []
    path = write_timeline(tmp_path / f"found{ending}", timeline, notify=said.append)
    expected = [
        (pytest.approx(s.start_seconds, abs=1e-3), pytest.approx(s.end_seconds, abs=1e-3), s.label)
        for s in timeline.segments()
        if s.label is not None
    ]
    assert expected
    found = nlv.read_annotations(path, media=timeline.path if ending in (".srt", ".eaf") else None)
    assert [(row.start_seconds, row.end_seconds, row.label) for row in found] == expected
    assert {Path(row.path).stem for row in found} == {"a"}  # ActivityNet names videos without their ending


def test_an_unknown_ending_names_all(timeline: nlv.Timeline, tmp_path: Path) -> None:
    with pytest.raises(nlv.UsageError, match=r"should end in one of \.json, .*\.eaf, \.boris, \.labelstudio\.json"):
        write_timeline(tmp_path / "found.txt", timeline)
