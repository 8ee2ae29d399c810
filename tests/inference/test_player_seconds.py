"""A film whose pictures begin late: every second that is taken or given is the player's."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from nonlocal_video.attention.maps import QueryPoint
from nonlocal_video.datasets.check import check_clips
from nonlocal_video.datasets.labelled import LabelledClip
from nonlocal_video.datasets.manifest import ManifestRow
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline_files import to_json, to_vtt
from nonlocal_video.inference.windows import plan_windows
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.augment import Augmentation
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.sampling import plan_views

DELAY = 0.7
SPEC = InputSpec(8, 10.0, 64, 48, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def clip(colour_clip: Callable[[int], Path]) -> Path:
    """30 frames of changing colours, 3 s."""
    return colour_clip(30)


@pytest.fixture(scope="module", params=["after the sound", "after nothing"])
def late(clip: Path, request: pytest.FixtureRequest) -> Path:
    """The same pictures, 0.7 s later."""
    path, sound = clip.with_name("late.mkv"), []
    if request.param == "after the sound":
        path = clip.with_name("late.mp4")
        sound = ["-f", "lavfi", "-i", "sine=440:duration=4", "-map", "0:v", "-map", "1:a", "-c:a", "aac"]
    command = [
        "ffmpeg",
        "-y",
        "-v",
        "error",
        "-itsoffset",
        str(DELAY),
        "-i",
        str(clip),
        *sound,
        "-c:v",
        "copy",
        str(path),
    ]
    subprocess.run(command, check=True)
    return path


def test_a_view_of_the_whole_lies_where_the_pictures_do(recognizer: Recognizer, clip: Path, late: Path) -> None:
    expected, found = recognizer.classify(clip, views="3x1"), recognizer.classify(late, views="3x1")
    assert found.video.start_seconds == pytest.approx(DELAY, abs=1e-3)
    assert expected.video.start_seconds == 0
    for before, after in zip(expected.views, found.views, strict=True):
        assert after.start_seconds == pytest.approx(before.start_seconds + DELAY, abs=1e-3)
        assert after.end_seconds == pytest.approx(before.end_seconds + DELAY, abs=1e-3)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.to_row()["video"]["start_seconds"] == found.video.start_seconds
    assert not found.notes


def test_a_span_is_asked_for_in_the_players_seconds(recognizer: Recognizer, clip: Path, late: Path) -> None:
    start, end = 1.0, 2.0
    expected = recognizer.classify(clip, start_seconds=start, end_seconds=end)
    found = recognizer.classify(late, start_seconds=start + DELAY, end_seconds=end + DELAY)
    np.testing.assert_array_equal(found.scores, expected.scores)
    # Before the first picture there is nothing to see: the part begins with it, and the answer says so.
    early = recognizer.classify(late, start_seconds=0.0, end_seconds=1.0 + DELAY)
    np.testing.assert_array_equal(early.scores, recognizer.classify(clip, end_seconds=1.0).scores)
    assert early.views[0].start_seconds >= early.video.start_seconds
    with pytest.raises(UsageError, match=r"end_seconds = 0.5 should be after the video's first picture at 0\.700 s"):
        recognizer.classify(late, end_seconds=0.5)
    with pytest.raises(UsageError, match=r"before the video's end at 3\.700 s"):
        recognizer.classify(late, start_seconds=3.8)
    assert recognizer.classify(late, end_seconds=3.7).views  # the end of the pictures, as printed


@pytest.mark.parametrize("part", [{}, {"start_seconds": 0.0}, {"start_seconds": 1.3, "end_seconds": 3.0}])
@pytest.mark.slow
def test_windows_begin_with_the_first_picture(
    recognizer: Recognizer, clip: Path, late: Path, part: dict[str, float]
) -> None:
    found = recognizer.timeline(late, stride_seconds=0.5, **part)
    shifted = {name: max(0.0, second - DELAY) for name, second in part.items()}
    expected = recognizer.timeline(clip, stride_seconds=0.5, **shifted)
    np.testing.assert_allclose(found.starts, expected.starts + DELAY, atol=1e-3)
    np.testing.assert_allclose(found.ends, expected.ends + DELAY, atol=1e-3)
    np.testing.assert_array_equal(found.scores, expected.scores)
    if "end_seconds" not in part:
        assert found.ends[-1] == pytest.approx(3.7, abs=1e-3)
        assert to_vtt(found.segments()).splitlines()[2].startswith("00:00:00.700 --> ")
    for moment in (found.starts[1], found.ends[-2]):  # what is printed can be asked for again
        assert found.info.start_seconds <= moment <= found.info.end_seconds
    assert to_json(found)["video"]["start_seconds"] == found.info.start_seconds


def test_a_point_is_asked_about_in_the_players_seconds(recognizer: Recognizer, clip: Path, late: Path) -> None:
    expected = recognizer.explain(clip, query=(2.75, 0.5, 0.5))
    found = recognizer.explain(late, query=(2.75 + DELAY, 0.5, 0.5))
    np.testing.assert_array_equal(found.cells, expected.cells)
    np.testing.assert_allclose(found.seconds, expected.seconds + DELAY, atol=1e-3)
    assert found.query_index == expected.query_index
    # Before it begins, a player shows the first picture, or nothing.
    early = recognizer.explain(late, query=(0.2, 0.5, 0.5))
    assert (early.query_index, early.seconds[0]) == (0, pytest.approx(DELAY, abs=1e-3))
    with pytest.raises(UsageError, match=r"query seconds = 3\.8 is after the end of the clip, 3\.70 s"):
        recognizer.explain(late, query=(3.8, 0.5, 0.5))
    explanation = recognizer.explain_all(late)  # the middle
    with pytest.raises(UsageError, match="outside the span of the view"):
        explanation.maps(query=QueryPoint(0.75, 0.5, 0.5))


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_tables_have_the_second(
    run: Callable[..., Any], unsure_model: Path, late: Path, tmp_path: Path, ending: str
) -> None:
    output = tmp_path / f"table{ending}"
    assert run("classify", late, "--model", unsure_model, "--device", "cpu", "--output", output).status == 0
    if ending == ".jsonl":
        value = json.loads(output.read_text())["video"]["start_seconds"]
    elif ending == ".csv":
        with open(output, newline="") as file:
            (row,) = csv.DictReader(file)
        value = float(row["video_start_seconds"])
        names = list(row)
        assert names[names.index("video_start_seconds") + 1] == "video_decoder"
    else:
        (row,) = pq.read_table(output).to_pylist()
        value = row["video_start_seconds"]
    assert value == pytest.approx(DELAY, abs=1e-3)


@pytest.mark.slow
def test_training_sees_the_same_pictures(clip: Path, late: Path) -> None:
    """A manifest counts from the first picture, and the views of both clips are the same."""
    outcomes = list(check_clips([LabelledClip(str(path), "a", None, None) for path in (clip, late)], [VideoReader()]))
    assert [outcome.error for outcome in outcomes] == [None, None]
    np.testing.assert_array_equal(outcomes[0].thumbnails, outcomes[1].thumbnails)
    for augmentation in (None, Augmentation()):
        views = []
        for outcome in outcomes:
            info = outcome.info
            row = ManifestRow(
                path=outcome.clip.path, label="a", group=None, split=None, problem=None, sha256="0" * 64,
                duration_seconds=info.duration_seconds, num_frames=info.num_frames, fps=info.fps,
                width=info.width, height=info.height,
            )  # fmt: skip
            dataset = ClipDataset([row], ["a"], SPEC, augmentation=augmentation)
            views.append(dataset.view(0, 0)[0])
            dataset.close()
        assert torch.equal(*views)


def test_plans_are_those_of_a_video_that_begins_at_zero_shifted() -> None:
    """All rules for views and windows, on a video whose times are not round."""
    begin = 0.7432222222222222
    for seconds in (0.5, 3.0, 12.34):
        at_zero = VideoInfo("mov", "h264", 96, 72, 0, round(25 * seconds), 25.0, 0.0, seconds, False, "pyav")
        later = VideoInfo("mov", "h264", 96, 72, 0, round(25 * seconds), 25.0, begin, seconds, False, "pyav")
        for placement in ("both_ends", "left_of_parts", "wrapping_parts", "middle_of_parts"):
            how: dict[str, Any] = {"num_frames": 8, "frames_per_second": 5.0, "num_clips": 3}
            before = plan_views(at_zero, **how, clip_placement=placement)
            after = plan_views(later, **how, clip_placement=placement)
            for one, other in zip(before, after, strict=True):
                np.testing.assert_allclose(other.times_seconds, np.add(one.times_seconds, begin), atol=1e-9)
                assert other.playback_seconds == pytest.approx(one.playback_seconds)
                assert (other.start_seconds, other.end_seconds) == pytest.approx(
                    (one.start_seconds + begin, one.end_seconds + begin)
                )
        first, second = plan_windows(at_zero, SPEC), plan_windows(later, SPEC)
        np.testing.assert_allclose(second.starts, first.starts + begin, atol=2e-6)
        np.testing.assert_allclose(second.times, first.times + begin, atol=2e-6)


def test_reported_film(recognizer: Recognizer, data_folder: Path) -> None:
    timeline = recognizer.timeline(data_folder / "reports" / "late_video.mp4")
    assert timeline.starts[0] == pytest.approx(0.7)
    assert timeline.ends[-1] == pytest.approx(2.7)
    assert "00:00:00.700 --> " in to_vtt(timeline.segments())
    assert not timeline.info.notes
    assert recognizer.classify(data_folder / "reports" / "neg.mkv").notes == ()
