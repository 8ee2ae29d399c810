"""ActivityNet's JSON, the ground truth and the results of detectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from segment_rows import made_up, scored, spans, written

from nonlocal_video.annotations.formats import read_annotations, write_annotations
from nonlocal_video.annotations.segment import AnnotatedSegment
from nonlocal_video.errors import UsageError
from nonlocal_video.video.info import VideoInfo


def entry(*annotations: Any, **more: Any) -> dict[str, Any]:
    return {"subset": "training", "duration": 20.0, "annotations": list(annotations)} | more


def one(start: Any, end: Any, label: str = "walk") -> dict[str, Any]:
    return {"label": label, "segment": [start, end], "label_id": 3}


def database(folder: Path, **videos: Any) -> Path:
    return written(folder, "a.json", json.dumps({"version": "VERSION 1.3", "taxonomy": [], "database": videos}))


def test_keys_are_names_of_videos_that_may_have_a_prefix(tmp_path: Path) -> None:
    (tmp_path / "v_abc.mp4").touch()
    (tmp_path / "films").mkdir()
    (tmp_path / "films/xyz.mkv").touch()
    path = database(tmp_path, abc=entry(one(1, 2)), xyz=entry(one(1, 2), subset="validation"))
    found = read_annotations(path)
    assert [row.path for row in found] == [str(tmp_path / "v_abc.mp4"), str(tmp_path / "xyz")]
    assert [row.split for row in found] == ["train", "validation"]
    assert any(note.startswith("xyz: no such video") for note in found.notes)
    there = read_annotations(path, media_folder=tmp_path / "films")
    assert [row.path for row in there] == [str(tmp_path / "films/abc"), str(tmp_path / "films/xyz.mkv")]
    with pytest.raises(UsageError, match="speaks of several: abc, xyz"):
        read_annotations(path, media="a.mp4")


def test_endings_in_capitals_are_endings(tmp_path: Path) -> None:
    (tmp_path / "v_abc.MP4").touch()
    found = read_annotations(database(tmp_path, abc=entry(one(1, 2))))
    assert found[0].path == str(tmp_path / "v_abc.MP4")
    assert not found.notes


def test_doubles_are_taken_once_and_late_ends_and_broken_segments_are_named(tmp_path: Path) -> None:
    twice = [one(1, 2), one(1.0005, 2), one(1, 2, "run"), one(19, 25)]
    broken = [one(5, 4), one("x", 2), {"label": "walk"}, one(1, 2, " ")]
    found = read_annotations(database(tmp_path, abc=entry(*twice, *broken)))
    assert spans(found) == [(1, 2, "run"), (1, 2, "walk"), (19, 25, "walk")]
    assert any("1 segment that the file repeats" in note for note in found.notes)
    assert any("after the video's duration" in note for note in found.notes)
    assert len(found.problems) == 4


def test_results_have_scores(tmp_path: Path) -> None:
    rows = {"abc": [one(1, 2) | {"score": 0.9}, one(1, 2) | {"score": 0.8}]}
    path = written(tmp_path, "r.json", json.dumps({"version": "VERSION 1.3", "results": rows, "external_data": {}}))
    assert [row.score for row in read_annotations(path)] == [0.9, 0.8]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    rows = [r for r in made_up(tmp_path / "a.mp4") if r.score is not None]
    assert write_annotations(tmp_path / "o.activitynet.json", rows) == ()
    document = json.loads((tmp_path / "o.activitynet.json").read_text())
    assert document.keys() == {"version", "results", "external_data"}
    assert {tuple(row) for row in document["results"]["a"]} == {("label", "segment", "score")}
    assert scored(read_annotations(tmp_path / "o.activitynet.json")) == scored(rows)


def test_a_ground_truth_has_durations_and_subsets(tmp_path: Path) -> None:
    info = VideoInfo("mov", "h264", 64, 48, 0, 50, 25.0, 0.0, 2.0, False, "pyav")
    rows = [
        AnnotatedSegment("x/v_a.mp4", 0, 1, "walk", split="test"),
        AnnotatedSegment("b.mp4", 0, 1, "walk", group="g"),
    ]
    notes = write_annotations(tmp_path / "o.activitynet.json", rows, videos={"x/v_a.mp4": info})
    document = json.loads((tmp_path / "o.activitynet.json").read_text())
    walk = [{"label": "walk", "segment": [0, 1]}]
    assert document["database"] == {
        "a": {"annotations": walk, "duration": 2.0, "resolution": "64x48", "subset": "testing"},
        "b": {"annotations": walk},
    }
    assert any("b: written without a duration" in note for note in notes)
    assert any("group" in note for note in notes)


def test_two_videos_of_one_name_are_refused(tmp_path: Path) -> None:
    rows = [AnnotatedSegment("x/a.mp4", 0, 1, "walk"), AnnotatedSegment("y/a.mp4", 0, 1, "walk")]
    with pytest.raises(UsageError, match="are both 'a'"):
        write_annotations(tmp_path / "o.activitynet.json", rows)
