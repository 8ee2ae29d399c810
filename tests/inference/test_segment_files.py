"""Segments as a CSV, and cut to clips: half-open, in the player's seconds, every frame where it belongs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.segment_files import cut_segments, frame_times, to_segments_csv
from nonlocal_video.inference.timeline import Segment
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video

SEGMENTS = [
    Segment(0.0, 1.2, "playing drums", 0, 0.75),
    Segment(1.2, 1.6, None, None, 0.2),
    Segment(1.6, 3.0, "=jump/ing (high)", 1, 0.5),
]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Thirty frames at 10 a second, each 8 brighter than the one before."""
    path = tmp_path / "brighter.mp4"
    write_video(path, (np.full((48, 65, 3), 8 * number, np.uint8) for number in range(30)), fps=10)
    return path


def test_the_csv_has_a_row_for_each_segment_with_a_class(tmp_path: Path) -> None:
    text = to_segments_csv("clips/a.mp4", SEGMENTS, Path("out/deep"))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["path"] for row in rows] == ["../../clips/a.mp4"] * 2
    assert [(float(row["start_seconds"]), float(row["end_seconds"])) for row in rows] == [(0.0, 1.2), (1.6, 3.0)]
    assert [row["label"] for row in rows] == ["playing drums", "=jump/ing (high)"]  # never escaped for spreadsheets
    for absolute in ("/clips/a.mp4", "https://host/a.mp4"):
        assert f"\n{absolute}," in to_segments_csv(absolute, SEGMENTS, tmp_path)


def test_clips_hold_the_frames_from_start_up_to_but_not_at_the_end(video: Path, tmp_path: Path) -> None:
    with VideoReader() as reader:
        paths = cut_segments(reader, str(video), SEGMENTS, tmp_path / "cut" / "here")
        assert [path.name for path in paths] == [
            "0001_0.00-1.20_playing_drums.mp4",
            "0002_1.60-3.00_jump_ing_high.mp4",
        ]
        for path, numbers in zip(paths, (range(12), range(16, 30)), strict=True):
            info = reader.probe(path)
            assert (info.num_frames, info.duration_seconds) == (len(numbers), pytest.approx(len(numbers) / 10))
            times = [(position + 0.5) / 10 for position in range(len(numbers))]
            grey = reader.read(path, times).frames_thwc.mean(axis=(1, 2, 3))
            np.testing.assert_allclose(grey, [8 * number for number in numbers], atol=3)


def test_nothing_is_written_over(video: Path, tmp_path: Path) -> None:
    kept = tmp_path / "cut" / "0002_1.60-3.00_jump_ing_high.mp4"
    kept.parent.mkdir()
    kept.write_text("mine")
    with VideoReader() as reader, pytest.raises(UsageError, match="exists, and is not written over"):
        cut_segments(reader, str(video), SEGMENTS, kept.parent)
    assert [path.read_text() for path in kept.parent.iterdir()] == ["mine"]
    with VideoReader() as reader, pytest.raises(OutputError, match="cannot be written"):
        cut_segments(reader, str(video), SEGMENTS, kept / "folder")


@pytest.mark.parametrize(("start", "end", "fps", "frames"), [(0, 1, 25, 25), (0.5, 0.51, 25, 1), (2, 4, 1000, 240)])
def test_a_whole_number_of_frames_fills_the_clip(start: float, end: float, fps: float, frames: int) -> None:
    times, rate = frame_times(start, end, fps)
    assert len(times) == frames
    assert float(rate) == pytest.approx(frames / (end - start))
    assert start < times[0] <= times[-1] < end
