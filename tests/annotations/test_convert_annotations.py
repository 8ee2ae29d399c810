"""`annotations convert` as a user meets it, and every format into every other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from segment_rows import spans, written

import nonlocal_video as nlv
from nonlocal_video.annotations.convert import convert_annotations
from nonlocal_video.annotations.formats import FORMATS
from nonlocal_video.cli.main import main
from nonlocal_video.errors import UsageError
from nonlocal_video.video.encode import write_video

WRITTEN = [ending for ending, row in FORMATS.items() if row.write is not None]
ROWS = [(0.5, 2.25, "walk"), (2.25, 4.75, "arm wrestling"), (3.0, 3.5, "walk")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 5 s at 20 frames a second, and its segments on whole frames."""
    folder = tmp_path_factory.mktemp("convert")
    write_video(folder / "a.mp4", (np.full((32, 32, 3), 2 * i, np.uint8) for i in range(100)), fps=20)
    text = "".join(f"a.mp4,{start},{end},{label}\n" for start, end, label in ROWS)
    written(folder, "a.csv", f"path,start_seconds,end_seconds,label\n{text}")
    return folder


@pytest.mark.parametrize("ending", WRITTEN)
def test_every_format_holds_the_segments(folder: Path, tmp_path: Path, ending: str) -> None:
    done = convert_annotations([folder / "a.csv"], folder / f"o{ending}")
    assert not done.problems
    media = folder / "a.mp4" if ending in (".vtt", ".srt") else None
    back = convert_annotations([folder / f"o{ending}"], tmp_path / "back.csv", media=media)
    assert spans(back.segments) == spans(nlv.read_annotations(folder / "a.csv"))
    assert {Path(segment.path).resolve() for segment in back.segments} == {(folder / "a.mp4").resolve()}


def test_lengths_and_rates_come_from_the_videos(folder: Path) -> None:
    convert_annotations([folder / "a.csv"], folder / "p.boris")
    (observation,) = json.loads((folder / "p.boris").read_text())["observations"].values()
    (length,), (rate,) = observation["media_info"]["length"].values(), observation["media_info"]["fps"].values()
    assert (length, rate) == (5.0, 20.0)
    convert_annotations([folder / "a.csv"], folder / "p.labelstudio.json")
    assert json.loads((folder / "p.labelstudio.json").read_text())[0]["data"]["fps"] == 20


def test_several_files_become_one_and_a_video_is_chosen(folder: Path, tmp_path: Path) -> None:
    other = written(tmp_path, "b.csv", "path,start_seconds,end_seconds,label\nb.mp4,1,1,blink\nb.mp4,x,2,run\n")
    done = convert_annotations([folder / "a.csv", other], tmp_path / "all.csv", point_seconds=0.5)
    assert len(done.segments) == 4
    assert (1, 1.5, "blink") in spans(nlv.read_annotations(tmp_path / "all.csv"))
    assert done.problems[0].startswith("b.csv: line 3")
    assert any("b.mp4: not found" in note for note in done.notes)
    one = convert_annotations([folder / "a.csv", other], tmp_path / "a.eaf", video="a.mp4")
    assert len(one.segments) == 3
    with pytest.raises(UsageError, match=r"No segment is of video = 'c.mp4'"):
        convert_annotations([folder / "a.csv"], tmp_path / "c.eaf", video="c.mp4")


def test_nothing_is_written_where_there_is_nothing(tmp_path: Path) -> None:
    empty = written(tmp_path, "e.csv", "path,start_seconds,end_seconds,label\na.mp4,2,1,x\n")
    with pytest.raises(UsageError, match=r"no segment in .*first problem: line 2"):
        convert_annotations([empty], tmp_path / "o.eaf")
    with pytest.raises(UsageError, match="should end in one of"):
        convert_annotations([empty], tmp_path / "o.json")
    with pytest.raises(UsageError, match="point-seconds"):
        convert_annotations(
            [written(tmp_path, "f.csv", "path,start_seconds,end_seconds,label\na,1,2,x\n")],
            tmp_path / "o.csv",
            point_seconds=0,
        )
    assert not list(tmp_path.glob("o.*"))


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The verb in this process, which has the package loaded already."""

    def in_this_process(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["nonlocal-video", "annotations", "convert", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return in_this_process


def test_the_verb_says_what_it_did_and_does_not_replace_a_file(folder: Path, tmp_path: Path, run: Run) -> None:
    done = run(folder / "a.csv", tmp_path / "o.eaf")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 segments of 1 video, written to")
    again = run(folder / "a.csv", tmp_path / "o.eaf")
    assert again.returncode == 2
    assert "exists" in again.stderr
    alone = run(folder / "a.csv")
    assert alone.returncode == 2
    assert "IN OUT" in alone.stderr


def test_a_bad_row_makes_the_status_1_and_json_holds_it(tmp_path: Path, run: Run) -> None:
    table = written(tmp_path, "t.csv", "path,start_seconds,end_seconds,label\na.mp4,1,2,x\na.mp4,2,1,x\n")
    done = run(table, tmp_path / "o.vtt", "--json")
    assert done.returncode == 1
    row = json.loads(done.stdout)
    assert (row["num_segments"], row["num_videos"]) == (1, 1)
    assert "line 3" in row["problems"][0]
    assert "line 3" in done.stderr
