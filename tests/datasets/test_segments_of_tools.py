"""Files of annotation tools where lists of segments are taken: the same clips as from the CSV with the same rows."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from nonlocal_video.annotations.formats import write_annotations
from nonlocal_video.annotations.segment import AnnotatedSegment
from nonlocal_video.datasets.labelled import read_source
from nonlocal_video.datasets.segment_table import read_segments
from nonlocal_video.errors import UsageError
from nonlocal_video.features.inputs import listed
from nonlocal_video.teaching.examples import read_examples
from nonlocal_video.video.info import VideoInfo

ROWS = [(0.0, 1.0, "wave"), (1.2, 2.4, "bow"), (3.0, 4.0, "wave"), (4.0, 5.2, "bow")]
ENDINGS = (".eaf", ".boris", ".labelstudio.json", ".activitynet.json", ".vtt", ".srt")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "day.mp4"
    path.write_bytes(b"not read")
    return path


def write(path: Path, video: Path) -> Path:
    segments = [AnnotatedSegment(str(video), *row) for row in ROWS]
    info = VideoInfo("mov", "h264", 64, 48, 0, 250, 25.0, 0.0, 10.0, has_edit_list=False, decoder="pyav")
    write_annotations(path, segments, videos={str(video): info})
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_reader_takes_it(ending: str, tmp_path: Path, video: Path) -> None:
    table = write(tmp_path / "day.segments.csv", video)
    file = write(tmp_path / f"day{ending}", video)
    (found,), (expected,) = read_segments(file).videos, read_segments(table).videos
    assert Path(found.path) == Path(expected.path)
    assert [span.label for span in found.spans] == [span.label for span in expected.spans]
    for one, other in zip(found.spans, expected.spans, strict=True):
        assert (one.start_seconds, one.end_seconds) == pytest.approx((other.start_seconds, other.end_seconds))
    clips = [(clip.label, Path(clip.group or "").name) for clip in read_source(file).clips]
    assert clips == [(label, "day.mp4") for _, _, label in ROWS]
    assert read_examples(file).labels == ("bow", "wave")
    assert len(listed([file, "other.mp4"])) == 5


def test_a_table_of_boris_is_told_by_its_columns(tmp_path: Path, video: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = ["Observation id,Media duration (s),Subject,Behavior,Behavior type,Start (s),Stop (s),Media file name"]
    lines += [f"day,10.0,No focal subject,{label},STATE,{start},{end},day.mp4" for start, end, label in ROWS]
    table = tmp_path / "bouts.csv"
    table.write_text("\n".join(lines) + "\n")
    (found,) = read_segments(table).videos
    assert [(span.start_seconds, span.end_seconds, span.label) for span in found.spans] == ROWS
    assert len(read_source(table).clips) == len(read_examples(table).examples) == 4
    with table.open("a") as file:
        file.write("day,10.0,No focal subject,blink,POINT,6,6,day.mp4\n")
    with caplog.at_level(logging.WARNING):
        assert len(listed([table])) == 4
    assert "1 events without a duration were left out." in caplog.text


def test_points_and_broken_segments_are_not_passed_in_silence(
    tmp_path: Path, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = json.loads(write(tmp_path / "day.boris", video).read_text())
    (observation,) = project["observations"].values()
    project["behaviors_conf"]["9"] = {**project["behaviors_conf"]["0"], "type": "Point event", "code": "blink"}
    observation["events"].append([6.0, "", "blink", "", "", 150])
    (tmp_path / "points.boris").write_text(json.dumps(project))
    said = "1 events without a duration were left out."
    assert said in read_source(tmp_path / "points.boris").notes
    assert said in read_examples(tmp_path / "points.boris").notes
    with caplog.at_level(logging.WARNING):
        assert len(listed([tmp_path / "points.boris"])) == 4
    assert said in caplog.text
    observation["events"].append([7.0, "", "wave", "", "", 175])  # begins and never ends
    (tmp_path / "broken.boris").write_text(json.dumps(project))
    with pytest.raises(UsageError, match=r"segments that cannot be read: .* nonlocal-video annotations convert"):
        read_segments(tmp_path / "broken.boris")


def test_other_json_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "x"}')
    with pytest.raises(UsageError, match="is JSON, but neither Label Studio's nor ActivityNet's"):
        read_source(tmp_path / "package.json")
