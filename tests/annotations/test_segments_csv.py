"""The segments CSV, and the rows that every format is read into."""

from __future__ import annotations

import csv
import os
from itertools import pairwise
from pathlib import Path

import pytest
from segment_rows import made_up, scored, spans, written

import nonlocal_video as nlv
from nonlocal_video.annotations.segment import AnnotatedSegment, without_overlap
from nonlocal_video.errors import UsageError

HEAD = "path,start_seconds,end_seconds,label"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = made_up(tmp_path / "a.mp4")
    rows.append(AnnotatedSegment("https://host/b.mp4", 0.125, 200.5, "=1+1", "'g", "train", 0.25, "-Ann"))
    assert nlv.write_annotations(tmp_path / "o.segments.csv", rows) == ()
    with open(tmp_path / "o.segments.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    # As they are: other programs read these labels, and training takes them for classes.
    assert (last["label"], last["annotator"], last["group"]) == ("=1+1", "-Ann", "'g")
    again = nlv.read_annotations(tmp_path / "o.segments.csv")
    assert scored(again) == scored(rows)
    assert again[-1].label == "=1+1"
    assert (again[-1].path, again[-1].group, again[-1].annotator) == ("https://host/b.mp4", "'g", "-Ann")


def test_paths_count_from_the_tables_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.makedirs("tables")
    nlv.write_annotations(
        "tables/o.csv", [AnnotatedSegment("clips/a.mp4", 0, 1, "x"), AnnotatedSegment("tables/-b.mp4", 0, 1, "x")]
    )
    rows = list(csv.DictReader(Path("tables/o.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == ["../clips/a.mp4", "-b.mp4"]
    assert [row.path for row in nlv.read_annotations("tables/o.csv")] == ["clips/a.mp4", "tables/-b.mp4"]


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD}\na.mp4,1,2,x\n",
        f"\ufeff{HEAD}\r\na.mp4,1,2,x\r\n\r\n",
        "sep=;\nLabel ; PATH;Start_seconds;end_seconds\nx;a.mp4;1;2\n",
        f"{HEAD},notes\na.mp4,1.0,2e0, x ,mine\n".replace(",", "\t"),
    ],
)
def test_tables_of_spreadsheets(tmp_path: Path, text: str) -> None:
    found = nlv.read_annotations(written(tmp_path, "t.csv", text))
    assert spans(found) == [(1, 2, "x")]
    assert any("notes" in note for note in found.notes) == ("notes" in text)


def test_bad_rows_are_problems_with_their_line_and_the_others_are_kept(tmp_path: Path) -> None:
    bad = ["a.mp4,x,2,b", "a.mp4,-1,2,b", "a.mp4,3,2,b", "a.mp4,1,nan,b", "a.mp4,1,2,", ",1,2,b", "a.mp4,1"]
    found = nlv.read_annotations(written(tmp_path, "t.csv", "\n".join([HEAD, *bad, "a.mp4,1,2,good"])))
    assert spans(found) == [(1, 2, "good")]
    assert [problem.partition(":")[0] for problem in found.problems] == [f"line {n}" for n in range(2, 9)]


def test_missing_columns_and_torn_quotes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not start_seconds, end_seconds"):
        nlv.read_annotations(written(tmp_path, "t.csv", "path,label\na.mp4,x\n"))
    with pytest.raises(UsageError, match="not valid CSV"):
        nlv.read_annotations(written(tmp_path, "t.csv", f'{HEAD}\n"a".mp4,1,2,x\n'))
    with pytest.raises(UsageError, match=r"\(none\)"):
        nlv.read_annotations(written(tmp_path, "t.csv", ""))


def test_points_are_left_out_and_said(tmp_path: Path) -> None:
    (note,) = nlv.write_annotations(tmp_path / "o.csv", [AnnotatedSegment("a.mp4", 1, 1, "blink")])
    assert "--point-seconds" in note
    assert nlv.read_annotations(tmp_path / "o.csv").segments == ()


@pytest.mark.parametrize(
    "row", [("a", -1, 1, "x"), ("a", 2, 1, "x"), ("a", 0, float("inf"), "x"), ("a", 0, 1, " "), ("", 0, 1, "x")]
)
def test_segments_that_cannot_be(row: tuple[str, float, float, str]) -> None:
    with pytest.raises(UsageError):
        AnnotatedSegment(*row)


def test_layers_are_as_few_as_the_most_that_overlap(tmp_path: Path) -> None:
    """The fewest possible is the largest number of segments at one moment, counted by brute force."""
    rows = made_up(tmp_path / "a.mp4", 80, seed=3)
    layers = without_overlap(rows)
    assert sorted(row.start_seconds for layer in layers for row in layer) == sorted(row.start_seconds for row in rows)
    for layer in layers:
        assert all(a.end_seconds <= b.start_seconds for a, b in pairwise(layer))
    most = max(sum(r.start_seconds <= t.start_seconds < r.end_seconds for r in rows) for t in rows)
    assert len(layers) == most
