"""`nonlocal-video search` as a user meets it: what it prints, what it writes, its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_tables import write_table

from nonlocal_video.video.encode import write_video

Run = Callable[..., Any]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of three videos, one of them an error, of which the third is not on the disk; the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, (np.full((48, 64, 3), 8 * number, np.uint8) for number in range(30)), fps=10)
    features = np.array([[1.0, 0, 0, 2], [0, 1, 0, 2], [0, 0, 1, 2]])
    starts = [0.0, 1.0, 2.0]
    rows = [("a.mp4", starts, features), ("b.mp4", starts, features[::-1]), ("c\x1b.mp4", starts[:1], features[:1])]
    write_table(tmp_path / "t.parquet", rows, seconds=1.0, errors=["bad.mp4"])
    return tmp_path


def test_moments_are_printed(archive: Path, run: Run) -> None:
    done = run("search", "t.parquet", "--like", "a.mp4", "--at", "0.5", "--top-k", "2")
    lines = done.out.splitlines()
    assert done.status == 0  # although a file of the table has an error
    assert lines[0] == "like a.mp4  00:00:00.000 - 00:00:01.000"
    assert lines[1:3] == [
        "    1   1.000  00:00:02.000 - 00:00:03.000  b.mp4",
        r"    2   1.000  00:00:00.000 - 00:00:01.000  c\x1b.mp4",
    ]
    assert "1 files could not be read" in done.err


def test_json_is_one_object_and_nothing_else(archive: Path, run: Run) -> None:
    outputs = [word for ending in ("csv", "jsonl", "json", "png", "html") for word in ("--output", f"found.{ending}")]
    done = run("search", "t.parquet", "--like", "a.mp4", "--at", "0.5", "--json", "--top-k", "2", *outputs)
    assert done.status == 0
    found = json.loads(done.out)
    assert list(found) == ["query", "hits"]
    assert found["query"]["like"] == [{"path": "a.mp4", "start_seconds": 0.0, "end_seconds": 1.0}]
    assert [list(hit) for hit in found["hits"]] == [["rank", "path", "start_seconds", "end_seconds", "score"]] * 2
    assert json.loads(Path("found.json").read_text("utf-8")) == found
    assert all(f"found.{ending}" in done.err for ending in ("csv", "jsonl", "json", "png", "html"))
    assert run("search", "t.parquet", "--like", "a.mp4", *outputs[:2]).status == 2  # not written over


def test_clips_are_cut_and_what_cannot_be_is_named(archive: Path, run: Run) -> None:
    done = run("search", "t.parquet", "--like", "a.mp4", "--at", "0.5", "--top-k", "2", "--clips-dir", "clips")
    assert done.status == 1
    assert [path.name for path in Path("clips").iterdir()] == ["0001_2.00-3.00_b.mp4"]
    assert r"c\x1b.mp4: not_found" in done.err


def test_filters_and_parts(archive: Path, run: Run) -> None:
    done = run("search", "t.parquet", "--like", "a.mp4#t=0,1", "--include", "b*", "--min-score", "0.9", "--json")
    assert [(hit["path"], hit["start_seconds"]) for hit in json.loads(done.out)["hits"]] == [("b.mp4", 2.0)]
    done = run("search", "t.parquet", "--like", "a.mp4#t=0,1", "--unlike", "a.mp4#t=1,2", "--exclude", "b*", "--json")
    hits = json.loads(done.out)["hits"]
    assert (hits[0]["path"], "b.mp4" in {hit["path"] for hit in hits}) == ("c\x1b.mp4", False)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("t.parquet",), 2, "--like"),
        (("t.parquet", "--like", "a.mp4", "--output", "found.txt"), 2, "should end in"),
        (("nowhere.parquet", "--like", "a.mp4"), 2, "not there"),
        (("t.parquet", "--like", "a.mp4", "--at", "9"), 2, "not in the archive"),
        (("t.parquet", "--like", "a.mp4", "--stride-seconds", "1"), 2, "only for a folder"),
    ],
)
def test_wrong_use(archive: Path, run: Run, words: tuple[str, ...], status: int, message: str) -> None:
    done = run("search", *words)
    assert (done.status, done.out) == (status, "")
    assert message in done.err


@pytest.mark.slow
def test_a_folder_from_the_shell(clip_folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nonlocal_video", "search", str(clip_folder), "--like", str(clip_folder / "a.mp4")]
    options = ["--model", str(tiny_model), "--device", "cpu", "--index", str(tmp_path / "i.parquet"), "--json"]
    first, second = (
        subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False) for _ in "12"
    )
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert "4 new or changed files" in first.stderr
    assert "new or changed" not in second.stderr
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert {hit["path"] for hit in json.loads(first.stdout)["hits"]} <= {
        str(clip_folder / "b" / "c.mp4"),
        str(clip_folder / "z with space.mp4"),
    }
