"""WebVTT and SRT as players and people write them, and what other readers drop without a word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from segment_rows import LABELS, made_up, spans, written

from nonlocal_video.annotations.formats import read_annotations, write_annotations
from nonlocal_video.annotations.segment import AnnotatedSegment
from nonlocal_video.errors import UsageError

VTT = """\ufeffWEBVTT Kind: captions
Language: en

NOTE 00:00:00.000 --> 00:00:01.000
is no cue

STYLE
::cue { color: red }

intro
00:01.200 --> 00:03.400 align:start line:0%
<v Ann>arm <b>wrestling</b> &amp; more</v>

100:00:00.000 --> 100:00:01.000
two
lines
00:00:05.000 --> 00:00:06.000
without an empty line before

00:00:09.000 --> 00:00:09.000
point
"""
SRT = """1
00:00:01,200 --> 00:00:03,400
<i>walk</i>

2
0:00:04.5 --> 0:00:05,25 X1:10
{\\an8}run 93%
3
00:00:06,000 --> 00:00:07,000
jump & fall
"""


def test_webvtt(tmp_path: Path) -> None:
    (tmp_path / "film.webm").touch()
    found = read_annotations(written(tmp_path, "film.vtt", VTT))
    assert [(row.start_seconds, row.end_seconds, row.label) for row in found] == [
        (1.2, 3.4, "arm wrestling & more"),
        (360_000, 360_001, "two lines"),
        (5, 6, "without an empty line before"),
        (9, 9, "point"),
    ]
    assert {row.path for row in found} == {str(tmp_path / "film.webm")}


def test_srt(tmp_path: Path) -> None:
    found = read_annotations(written(tmp_path, "film.srt", SRT.replace("\n", "\r\n")), media="film.mp4")
    assert [(row.start_seconds, row.end_seconds, row.label, row.score) for row in found] == [
        (1.2, 3.4, "walk", None),
        (4.5, 5.25, "run", 0.93),
        (6, 7, "jump & fall", None),
    ]
    assert any("end of 1 cue was" in note for note in found.notes)


@pytest.mark.parametrize(
    "timing",
    [
        "-00:00:01.000 --> 00:00:02.000",
        "00:00:01 --> 00:00:02",
        "00:61:00.000 --> 00:62:00.000",
        "00:00:03.000 --> 00:00:02.000",
        "a --> b",
        "00:00:01.0000 --> 00:00:02.000",
    ],
)
def test_a_cue_that_is_none_is_a_problem_and_the_others_are_read(tmp_path: Path, timing: str) -> None:
    text = f"WEBVTT\n\n{timing}\nbad\n\n00:00:04.000 --> 00:00:05.000\ngood\n"
    found = read_annotations(written(tmp_path, "a.vtt", text), media="a.mp4")
    assert spans(found) == [(4, 5, "good")]
    assert found.problems[0].startswith("line 3: ")


def test_a_comma_instead_of_a_point_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.vtt", "WEBVTT\n\n00:00:01,000 --> 00:00:02,500\nx\n")
    assert spans(read_annotations(path, media="a.mp4")) == [(1, 2.5, "x")]


def test_the_video_is_named_or_lies_beside(tmp_path: Path) -> None:
    path = written(tmp_path, "film.en.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nx\n")
    with pytest.raises(UsageError, match="--media"):
        read_annotations(path)
    (tmp_path / "film.MP4").touch()
    assert read_annotations(path)[0].path == str(tmp_path / "film.MP4")
    (tmp_path / "films").mkdir()
    (tmp_path / "films/film.mkv").touch()
    assert read_annotations(path, media_folder=tmp_path / "films")[0].path == str(tmp_path / "films/film.mkv")
    with pytest.raises(UsageError, match="begin with WEBVTT"):
        read_annotations(written(tmp_path, "film.vtt", SRT))


@pytest.mark.parametrize("ending", ["vtt", "srt"])
def test_what_is_written_is_read_again(tmp_path: Path, ending: str) -> None:
    rows = made_up(tmp_path / "a.mp4")
    path = tmp_path / f"o.{ending}"
    assert write_annotations(path, rows) == (
        f"{'WebVTT' if ending == 'vtt' else 'SRT'} has scores in whole percent, behind the label.",
    )
    again = read_annotations(path, media=rows[0].path)
    assert spans(again) == spans(rows)
    assert sorted(str(row.score) for row in again) == sorted(str(row.score) for row in rows)


@pytest.mark.parametrize(("ending", "mark"), [("vtt", "."), ("srt", ",")])
def test_the_written_cues_have_the_formats_form(tmp_path: Path, ending: str, mark: str) -> None:
    rows = [AnnotatedSegment("a.mp4", 3723.5, 3724, label) for label in (*LABELS, "a --> b", "two\nlines")]
    write_annotations(tmp_path / f"o.{ending}", rows)
    text = (tmp_path / f"o.{ending}").read_text()
    blocks = text.strip().split("\n\n")[ending == "vtt" :]
    assert len(blocks) == len(rows)
    for number, block in enumerate(blocks, start=1):
        lines = block.split("\n")
        if ending == "srt":
            assert lines.pop(0) == str(number)
        assert lines[0] == f"01:02:03{mark}500 --> 01:02:04{mark}000"
        assert len(lines) == 2
        assert "-->" not in lines[1]
        if ending == "vtt":
            assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", lines[1])


def test_points_several_videos_and_groups(tmp_path: Path) -> None:
    rows = [AnnotatedSegment("a.mp4", 1, 2, "x", group="g"), AnnotatedSegment("a.mp4", 2, 2, "y")]
    notes = " ".join(write_annotations(tmp_path / "o.vtt", rows))
    assert "1 event " in notes
    assert "group" in notes
    with pytest.raises(UsageError, match="of one video"):
        write_annotations(tmp_path / "o.vtt", [*rows, AnnotatedSegment("b.mp4", 1, 2, "x")])
