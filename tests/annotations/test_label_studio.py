"""Label Studio: frames from 1 on, the last one included, at a rate that is not the video's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from segment_rows import first, made_up, spans, written

from nonlocal_video.annotations.formats import read_annotations, write_annotations
from nonlocal_video.annotations.label_studio import read_label_studio
from nonlocal_video.annotations.options import ReadOptions
from nonlocal_video.annotations.segment import AnnotatedSegment
from nonlocal_video.errors import UsageError
from nonlocal_video.video.encode import write_video


def region(start: Any, end: Any, label: str = "walk", **more: Any) -> dict[str, Any]:
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}
    return {"id": "r1", "from_name": "actions", "to_name": "video", "type": "timelinelabels", "value": value} | more


def task(*results: dict[str, Any], kind: str = "annotations", **data: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"video": "/data/upload/1/1a2b3c4d-a.mp4"} | data, kind: [{"result": list(results)}]}


def export(folder: Path, *tasks: Any, name: str = "e.json") -> Path:
    (folder / "a.mp4").touch()
    return written(folder, name, json.dumps(list(tasks)))


def test_frames_count_from_1_and_include_the_last(tmp_path: Path) -> None:
    """Frame 1 is shown from 0 to 0.04 s at 25 frames a second: frames 31 to 85 are shown from 1.2 to 3.4 s."""
    found = read_annotations(export(tmp_path, task(region(31, 85), region(1, 1), fps=25)))
    assert spans(found) == [(0, 0.04, "walk"), (1.2, 3.4, "walk")]
    assert found[0].path == str(tmp_path / "a.mp4")  # without the prefix of uploaded files
    assert not found.notes


def test_without_a_rate_the_browsers_24_is_taken_and_said(tmp_path: Path) -> None:
    path = export(tmp_path, task(region(25, 48)))
    found = read_annotations(path)
    assert first(found) == (1, 2, "walk")
    assert any("24 frames" in note for note in found.notes)
    assert first(read_annotations(path, frames_per_second=12)) == (2, 4, "walk")
    for rate in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="frames-per-second"):
            read_annotations(path, frames_per_second=rate)
    with pytest.raises(UsageError, match="frames-per-second"):
        read_annotations(export(tmp_path, task(region(1, 2), fps=-5)))


def test_a_file_that_counts_from_0_is_recognised(tmp_path: Path) -> None:
    found = read_annotations(export(tmp_path, task(region(0, 24), region(25, 49), fps=25)))
    assert spans(found) == [(0, 1, "walk"), (1, 2, "walk")]
    assert any("count from 0" in note for note in found.notes)


def test_the_videos_own_frames_are_at_the_videos_own_times(tmp_path: Path) -> None:
    """A video at 10 frames a second: its 11th to 15th frame are shown from 1.0 to 1.5 s, whatever `fps` says."""
    import numpy as np

    write_video(tmp_path / "real.mp4", (np.full((32, 32, 3), 9 * i, np.uint8) for i in range(20)), fps=10)
    path = export(tmp_path, task(region(11, 15), region(18, 20), region(20, 21), fps=25, video="real.mp4"))
    found = read_annotations(path, by_timestamps=True)
    assert spans(found) == [(1.0, 1.5, "walk"), (1.7, 2.0, "walk")]
    assert "beyond the video's 20 frames" in found.problems[0]
    gone = read_annotations(export(tmp_path, task(region(1, 2), video="gone.mp4")), by_timestamps=True)
    assert len(gone.problems) == 1
    with pytest.raises(UsageError, match="one of the two"):
        read_annotations(path, by_timestamps=True, frames_per_second=25)


def test_a_variable_rate_needs_the_times_of_the_frames(tmp_path: Path) -> None:
    path = export(tmp_path, task(region(2, 2), region(3, 4), fps=25))
    options = ReadOptions(frame_times=lambda video: [0.0, 0.1, 0.35, 0.4, 0.5])
    assert spans(read_label_studio(path, options)) == [(0.1, 0.35, "walk"), (0.35, 0.5, "walk")]


def test_annotations_are_read_before_predictions(tmp_path: Path) -> None:
    both = task(region(26, 50), fps=25) | {"predictions": [{"result": [region(1, 25)]}]}
    only = task(region(1, 25, score=0.9), region(26, 50), kind="predictions", fps=25)
    only["predictions"][0]["score"] = 0.4
    skipped = task(region(1, 25), fps=25)
    skipped["annotations"][0]["was_cancelled"] = True
    found = read_annotations(export(tmp_path, both, only, skipped))
    assert spans(found) == [(0, 1, "walk"), (1, 2, "walk"), (1, 2, "walk")]
    assert sorted(row.score for row in found if row.score is not None) == [0.4, 0.9]
    assert any("from 1 task without" in note for note in found.notes)
    assert any("1 annotations that were skipped" in note for note in found.notes)


def test_other_results_are_counted_and_broken_ranges_are_problems(tmp_path: Path) -> None:
    others = [{"type": "choices", "value": {"choices": ["x"]}}, {"type": "videorectangle", "value": {}}]
    broken = [region(5, 4), region(1.5, 2), region("a", 2), region(None, 2)]
    found = read_annotations(export(tmp_path, task(*others, *broken, region(1, 25), fps=25)))
    assert spans(found) == [(0, 1, "walk")]
    assert len(found.problems) == 4
    assert any("1 results of type choices" in note for note in found.notes)


def test_several_labels_annotators_and_controls(tmp_path: Path) -> None:
    one = region(1, 25)
    one["value"]["timelinelabels"] = ["walk", "talk"]
    exported = task(one, region(1, 25, "calm", from_name="mood"), fps=25)
    exported["annotations"][0]["completed_by"] = {"id": 3, "email": "ann@example.org"}
    path = export(tmp_path, exported)
    assert {(row.label, row.annotator) for row in read_annotations(path)} == {
        (label, "ann@example.org") for label in ("walk", "talk", "calm")
    }
    assert [row.label for row in read_annotations(path, tiers=["mood"])] == ["calm"]


def test_the_minimal_export_is_read(tmp_path: Path) -> None:
    flat = {"id": 1, "video": "a.mp4", "fps": "25", "annotator": 2}
    flat["actions"] = [{"ranges": [{"start": 26, "end": 50}], "timelinelabels": ["walk"]}]
    empty = {"id": 2, "video": "b.mp4", "annotator": 2, "annotation_id": 5}  # a task that shows none of the actions
    (row,) = read_annotations(export(tmp_path, flat, empty))
    assert (row.start_seconds, row.end_seconds, row.label, row.annotator) == (1, 2, "walk", "2")


@pytest.mark.parametrize(
    ("video", "expected"),
    [
        ("/data/local-files/?d=clips/a%20b.mp4", "clips/a b.mp4"),
        ("https://host/a.mp4?x=1", "https://host/a.mp4?x=1"),
        ("s3://bucket/a.mp4", "s3://bucket/a.mp4"),
    ],
)
def test_addresses_of_videos(tmp_path: Path, video: str, expected: str) -> None:
    found = read_annotations(export(tmp_path, task(region(1, 25), fps=25, video=video)))
    assert found[0].path == (expected if "://" in expected else str(tmp_path / expected))
    (tmp_path / "films").mkdir()
    base = expected.rpartition("/")[2].partition("?")[0]
    (tmp_path / "films" / base).touch()
    path = export(tmp_path, task(region(1, 25), fps=25, video=video))
    assert read_annotations(path, media_folder=tmp_path / "films")[0].path == str(tmp_path / "films" / base)


def test_what_is_written_is_read_again_to_half_a_frame(tmp_path: Path) -> None:
    """Restated: the frames shown in [start, end), rounded to whole ones, at least one."""
    rows = made_up(tmp_path / "a.mp4", scores=False)
    notes = " ".join(write_annotations(tmp_path / "o.labelstudio.json", rows, frames_per_second=30))
    assert "1/30 s" in notes
    (written_task,) = json.loads((tmp_path / "o.labelstudio.json").read_text())
    assert written_task["data"]["fps"] == 30
    results = written_task["predictions"][0]["result"]
    for row, result in zip(sorted(rows, key=lambda r: (r.start_seconds, r.end_seconds)), results, strict=True):
        assert result.keys() == {"id", "from_name", "to_name", "type", "value"}
        (span,) = result["value"]["ranges"]
        assert 1 <= span["start"] <= span["end"]
        assert abs((span["start"] - 1) / 30 - row.start_seconds) <= 0.5 / 30 + 1e-9
        assert abs(span["end"] / 30 - row.end_seconds) <= 1 / 30
    assert len({result["id"] for result in results}) == len(rows)
    again = read_annotations(tmp_path / "o.labelstudio.json")
    assert sorted(row.label for row in again) == sorted(row.label for row in rows)


def test_scores_prefix_and_points(tmp_path: Path) -> None:
    rows = [AnnotatedSegment("x/a.mp4", 1, 2, "walk", score=0.5), AnnotatedSegment("x/a.mp4", 3, 3, "blink")]
    notes = write_annotations(tmp_path / "o.labelstudio.json", rows, url_prefix="https://host/films/")
    assert any("Left out: 1 event without a duration" in note for note in notes)
    (written_task,) = json.loads((tmp_path / "o.labelstudio.json").read_text())
    assert written_task["data"] == {"video": "https://host/films/a.mp4", "fps": 25}
    assert written_task["predictions"][0]["score"] == written_task["predictions"][0]["result"][0]["score"] == 0.5
