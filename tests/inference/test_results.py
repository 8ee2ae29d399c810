"""The table of a folder run, its journal, and what a crash leaves."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.results import ResultFile, columns, flatten

SETTINGS = {"model": "tiny", "views": "1x1"}


def row(path: object, score: float = 0.5) -> dict[str, Any]:
    return {
        "path": str(path),
        "status": "ok",
        "model": "tiny",
        "top": [{"label": "a, b", "index": 3, "score": score}, {"label": "c", "index": 1, "score": 0.25}],
        "error": None,
        "video": {
            "duration_seconds": 2.5, "num_frames": 75, "fps": 30.0, "width": 64, "height": 48, "codec": "h264",
            "rotation_degrees": 90, "start_seconds": 0.7, "decoder": "pyav",
        },
        "seconds": {"decode": 0.1, "transform": 0.2, "forward": 0.3, "total": 0.6},
        "notes": [],
    }  # fmt: skip


def failed(path: object) -> dict[str, Any]:
    return {
        "path": str(path), "status": "error", "model": "tiny", "top": [], "video": None, "seconds": None, "notes": [],
        "error": {"code": "corrupt", "message": 'it says "no"\nand stops'},
    }  # fmt: skip


def open_results(path: Path, *, resume: bool = False, settings: dict[str, Any] = SETTINGS) -> ResultFile:
    return ResultFile(path, settings, top_k=2, resume=resume)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with open_results(path) as results:
        for each in rows:
            results.append(each["path"], each)


def test_three_formats_hold_the_same_rows(tmp_path: Path) -> None:
    rows = [row("ünï 1.mp4"), failed("2.mp4")]
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        write(tmp_path / name, rows)
    assert [json.loads(line) for line in (tmp_path / "t.jsonl").read_text("utf-8").splitlines()] == rows
    flat = [flatten(each, 2) for each in rows]
    assert pq.read_table(tmp_path / "t.parquet").to_pylist() == flat
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(columns(2))
    assert read == [{name: "" if value is None else str(value) for name, value in each.items()} for each in flat]
    assert flat[0]["top1_label"] == "a, b"
    assert flat[0]["video_rotation_degrees"] == 90
    assert flat[0]["video_start_seconds"] == 0.7
    assert flat[1]["error_code"] == "corrupt"
    assert flat[1]["top1_label"] is None


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    files = [tmp_path / f"{index}.mp4" for index in range(4)]
    for file in files:
        file.write_bytes(b"x")
    output = tmp_path / "t.jsonl"
    results = open_results(output)
    for file in files[:2]:
        results.append(str(file), row(file))
    results._journal.close()  # as a killed process leaves it: no table
    assert not output.exists()
    with open(results.journal_path, "ab") as journal:
        journal.write(b'{"file": "cut in the mid')

    with open_results(output, resume=True) as resumed:
        to_do = list(resumed.still_to_do(map(str, files)))
        assert to_do == [str(file) for file in files[2:]]
        assert resumed.done_before == {"ok": 2}
        for name in to_do:
            resumed.append(name, row(name))
    assert [json.loads(line)["path"] for line in output.read_text().splitlines()] == [str(file) for file in files]


def test_a_changed_file_is_done_again_and_has_one_row(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"old")
    output = tmp_path / "t.jsonl"
    write(output, [row(clip, score=0.1)])
    clip.write_bytes(b"newer")
    with open_results(output, resume=True) as resumed:
        assert list(resumed.still_to_do([str(clip)])) == [str(clip)]
        resumed.append(str(clip), row(clip, score=0.9))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [each["top"][0]["score"] for each in rows] == [0.9]


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", [])
    with pytest.raises(UsageError, match="views was '1x1' and is '10x3'"):
        open_results(tmp_path / "t.csv", resume=True, settings={"model": "tiny", "views": "10x3"})
    with pytest.raises(UsageError, match="views was '1x1' and is None"):  # a setting that another version has
        open_results(tmp_path / "t.csv", resume=True, settings={"model": "tiny"})


def test_an_output_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", [row("1.mp4")])
    before = (tmp_path / "t.csv").read_bytes()
    with pytest.raises(UsageError, match="--resume"):
        open_results(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == before


def test_a_table_without_its_journal_is_not_taken_up(tmp_path: Path) -> None:
    """Its rows are not known, and the new table would be without them."""
    (tmp_path / "t.csv").write_text("precious")
    with pytest.raises(UsageError, match=r"no journal 't\.csv\.journal'"):
        open_results(tmp_path / "t.csv", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert (tmp_path / "t.csv").read_text() == "precious"


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (0, b"garbage", "Line 1 of .*another output name"),
        (0, b"[1, 2]", "Line 1 of "),
        (2, b"\x8d\x00\xff", r"Line 3 of .*head -n 2\b"),
        (2, b'{"file": "2.mp4"}', "Line 3 of "),
    ],
)
def test_a_damaged_journal_is_refused_and_left_alone(tmp_path: Path, number: int, line: bytes, message: str) -> None:
    write(tmp_path / "t.csv", [row("1.mp4"), row("2.mp4"), row("3.mp4")])
    journal = tmp_path / "t.csv.journal"
    lines = journal.read_bytes().split(b"\n")
    lines[number] = line
    journal.write_bytes(b"\n".join(lines))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=message):
        open_results(tmp_path / "t.csv", resume=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_writers_of_one_output_are_kept_apart(tmp_path: Path) -> None:
    with open_results(tmp_path / "t.csv"), pytest.raises(UsageError, match="Another process"):
        open_results(tmp_path / "t.csv", resume=True)


@pytest.mark.parametrize(("name", "message"), [("t.xlsx", ".csv, .jsonl, .parquet"), ("nowhere/t.csv", "folder")])
def test_unusable_names_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_results(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_output_and_a_journal_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "t.csv.journal").mkdir()
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"folder\.csv' is a folder; give a file"):
            open_results(tmp_path / "folder.csv", resume=resume)
    with pytest.raises(UsageError, match=r"t\.csv\.journal' is not a file.*another output name"):
        open_results(tmp_path / "t.csv", resume=True)


def test_a_table_that_cannot_be_written_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="make room"):
        write(tmp_path / "t.csv", [row("1.mp4")])
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv.journal"]


def test_an_error_leaves_the_journal_and_no_table(tmp_path: Path) -> None:
    results = open_results(tmp_path / "t.csv")
    results.append("1.mp4", row("1.mp4"))
    results.__exit__(OSError, OSError("disk full"), None)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv.journal"]
