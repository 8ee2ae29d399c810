"""Segments of a video as clips: each is what the same part cut out by hand is, for `classify`, `check` and training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nonlocal_video as nlv
from nonlocal_video.datasets.check import check_clips
from nonlocal_video.datasets.labelled import read_source
from nonlocal_video.datasets.labelled_clip import LabelledClip
from nonlocal_video.datasets.manifest import read_manifest
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.fragment import split_part, with_part
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video

SPEC = InputSpec(4, 5.0, 48, 48, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty frames at 10 a second, each 6 brighter than the one before."""
    path = tmp_path_factory.mktemp("segments") / "brighter.mp4"
    write_video(path, (np.full((48, 64, 3), 6 * number, np.uint8) for number in range(40)), fps=10)
    return path


@pytest.fixture
def table(video: Path) -> Path:
    path = video.parent / "segments.csv"
    lines = ["0,1,dark,", "1.5,2.5,middle,", "3,4,bright,"]
    path.write_text(
        "path,start_seconds,end_seconds,label,group\n" + "\n".join(f"{video.name},{line}" for line in lines)
    )
    return path


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.5, 2.25), (1e-7, 1 / 3), (12345.678901234, 1e6)])
def test_the_name_gives_the_part_back(start: float, end: float, tmp_path: Path) -> None:
    assert split_part(with_part("s3://a/b#c.mp4", start, end)) == ("s3://a/b#c.mp4", (start, end))
    for name in ("a.mp4", "a.mp4#t=1", "a#t=x,y.mp4", "#t=1,2"):
        assert split_part(name) == (name, None)
    itself = tmp_path / "odd.mp4#t=1,2"
    itself.touch()
    assert split_part(str(itself)) == (str(itself), None)


def test_a_part_is_answered_as_the_same_span(tiny_model: Path, video: Path) -> None:
    with nlv.load(tiny_model, device="cpu") as recognizer:
        part = recognizer.classify(with_part(str(video), 1.5, 2.5))
        span = recognizer.classify(video, start_seconds=1.5, end_seconds=2.5)
        assert part.scores.tobytes() == span.scores.tobytes()
        assert part.path == f"{video}#t=1.5,2.5"
        with pytest.raises(UsageError, match="names a part of its video; leave start-seconds"):
            recognizer.classify(with_part(str(video), 1.5, 2.5), start_seconds=1)


def test_a_list_of_segments_is_a_list_of_clips(table: Path, video: Path) -> None:
    found = read_source(table)
    assert [clip.path for clip in found.clips] == [f"{video}#t=0,1", f"{video}#t=1.5,2.5", f"{video}#t=3,4"]
    assert {clip.group for clip in found.clips} == {str(video)}  # so that no video is on two sides


def test_check_reads_each_part_and_names_what_goes_beyond(video: Path) -> None:
    clips = [LabelledClip(with_part(str(video), *span), "x") for span in ((0, 1), (1.5, 2.5), (3, 4.5))]
    *good, beyond = check_clips(clips, [VideoReader()])
    assert beyond.error is not None
    assert beyond.error.code == "not_found"
    assert "it has no such part: 3 to 4.5 s goes beyond the video's end, 4.00 s" in beyond.error.message
    for one, first in zip(good, (0, 15), strict=True):
        assert one.info is not None
        assert one.thumbnails is not None
        assert (one.info.num_frames, one.info.duration_seconds) == (10, 1.0)
        grey = one.thumbnails.mean(axis=(1, 2, 3))
        np.testing.assert_allclose(grey, [6 * (first + number) for number in (0, 3, 6, 9)], atol=3)
    assert good[0].sha256 != good[1].sha256


def test_check_writes_a_manifest_that_training_reads(run: Run, tiny_model: Path, table: Path, tmp_path: Path) -> None:
    done = run("check", table, "--model", tiny_model, "--output", tmp_path / "manifest.csv", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert (found["usable"], found["same_content"], found["unusable"]) == (3, [], [])
    rows = read_manifest(tmp_path / "manifest.csv").rows
    dataset = ClipDataset(rows, ("bright", "dark", "middle"), SPEC)
    try:
        for place, first in ((0, 0), (1, 15), (2, 30)):
            view, index = dataset.view(place, 0)
            assert dataset.labels[index] == rows[place].label
            # four steps of 0.2 s in the middle 0.8 s of the part: frames 2, 4, 6, 8 of it (or the one before)
            grey = (view.mean(dim=(0, 2, 3)) * 255).numpy()
            np.testing.assert_allclose(grey, [6 * (first + number) for number in (2, 4, 6, 8)], atol=7)
    finally:
        dataset.close()


def test_evaluate_measures_segments_as_clips(run: Run, tiny_model: Path, video: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"path,start_seconds,end_seconds,label\n{video},0,1,action 1\n{video},3,4,action 2\n")
    done = run("evaluate", table, "--model", tiny_model, "--output", tmp_path / "report", "--json")
    assert done.status == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "report" / "predictions.jsonl").read_text().splitlines()]
    with nlv.load(tiny_model, device="cpu") as recognizer:
        for row, (start, end) in zip(rows, ((0, 1), (3, 4)), strict=True):
            alone = recognizer.classify(video, start_seconds=start, end_seconds=end)
            assert row["top"][0]["score"] == pytest.approx(alone.top(1)[0].score)
