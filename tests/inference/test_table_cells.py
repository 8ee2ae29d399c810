"""Names and labels in tables: no formula reaches a spreadsheet, no two files share a name, our reader undoes both."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.csv_cells import escape_cell, unescape_cell
from nonlocal_video.inference.prediction import path_of_printable, printable
from nonlocal_video.inference.result_table import read_table
from nonlocal_video.inference.results import ResultFile, columns, flatten

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'=1", "''+x", "'-"]
PLAIN = ["clip.mp4", "'quoted'", "'", "", "a=b", " =1", "ünï", "\\xff", "1-2"]
NAMES = [
    b"\xff.mp4",
    rb"\xff.mp4",
    rb"\x5cxff.mp4",
    rb"a\b.mp4",
    b"=cmd.mp4",
    b"'=cmd.mp4",
    "é.mp4".encode(),
    b"\xe9.mp4",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_begins_like_a_formula_gets_an_apostrophe(text: str) -> None:
    assert escape_cell(text) == f"'{text}"
    assert unescape_cell(f"'{text}") == text


@pytest.mark.parametrize("value", [*PLAIN, -1, -1.5, None, True])
def test_other_text_and_all_numbers_stay(value: Any) -> None:
    assert escape_cell(value) == value
    if isinstance(value, str):
        assert unescape_cell(value) == value


@settings(deadline=None)
@given(st.text(alphabet="'=+-@\t\ra1 ", max_size=8))
def test_the_way_back_is_unambiguous(text: str) -> None:
    assert unescape_cell(escape_cell(text)) == text


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"\\", b"x", b"5", b"c", b"f", b"8", b"\xff", b"\xc3", b"\xa9", b"a", b"\\xff", b"F"]))
)
def test_any_bytes_come_back_and_no_two_names_are_one(parts: list[bytes]) -> None:
    name = os.fsdecode(b"".join(parts))
    text = printable(name)
    text.encode()
    assert path_of_printable(text) == name
    if name.isascii() and "\\x" not in name:
        assert text == name


def row(path: str, label: str = "dancing") -> dict[str, Any]:
    return {
        "path": printable(path), "status": "ok", "model": "tiny",
        "top": [{"label": label, "index": 3, "score": 0.5}, {"label": "c", "index": 1, "score": -0.25}],
        "error": None,
        "video": {
            "duration_seconds": 2.5, "num_frames": 75, "fps": 30.0, "width": 64, "height": 48, "codec": "h264",
            "rotation_degrees": -90, "decoder": "pyav",
        },
        "seconds": {"decode": 0.1, "transform": 0.2, "forward": 0.3, "total": 0.6},
        "notes": ["-looped"],
    }  # fmt: skip


@pytest.fixture
def rows() -> dict[str, dict[str, Any]]:
    made = {name: row(name, label) for name, label in zip(map(os.fsdecode, NAMES), FORMULAS, strict=False)}
    failed = row("=failed") | {"status": "error", "top": [], "video": None, "seconds": None}
    return made | {"=failed": failed | {"error": {"code": "corrupt", "message": "=HYPERLINK(1)"}}}


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("escape", [True, False])
def test_our_reader_gives_back_names_and_labels(
    tmp_path: Path, rows: dict[str, dict[str, Any]], ending: str, escape: bool
) -> None:
    output = tmp_path / f"table{ending}"
    with ResultFile(output, {}, top_k=2, resume=False, csv_escape=escape) as results:
        for name, of_file in rows.items():
            results.append(name, of_file)
    expected = [flatten(of_file, 2) | {"path": name} for name, of_file in rows.items()]
    assert read_table(output, csv_escape=escape) == expected
    assert len({each["path"] for each in read_table(output, csv_escape=escape)}) == len(rows)


def test_only_text_of_a_csv_is_escaped(tmp_path: Path, rows: dict[str, dict[str, Any]]) -> None:
    for name, escape in (("a.csv", True), ("b.csv", False), ("c.jsonl", True), ("d.parquet", True)):
        with ResultFile(tmp_path / name, {}, top_k=2, resume=False, csv_escape=escape) as results:
            for path, of_file in rows.items():
                results.append(path, of_file)
    kinds = columns(2)
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        cells = [(kinds[name], cell) for each in csv.DictReader(file) for name, cell in each.items()]
    assert not [cell for kind, cell in cells if kind is str and cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {"-0.25", "-90"} <= {cell for kind, cell in cells if kind is not str}
    assert {"'=cmd.mp4", "''=cmd.mp4", "'-looped", "'=HYPERLINK(1)"} <= {cell for _, cell in cells}
    with open(tmp_path / "b.csv", encoding="utf-8", newline="") as file:
        assert "=cmd.mp4" in {each["path"] for each in csv.DictReader(file)}
    nested = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text("utf-8").splitlines()]
    assert nested == list(rows.values())
    assert pq.read_table(tmp_path / "d.parquet").column("path").to_pylist() == [printable(name) for name in rows]


def test_what_is_no_table_of_ours_is_a_sentence(tmp_path: Path) -> None:
    for name, content in (("a.csv", "x,y\n1,2\n"), ("a.jsonl", "[" * 100_000), ("a.parquet", "no"), ("a.txt", "")):
        (tmp_path / name).write_text(content)
        with pytest.raises(UsageError):
            read_table(tmp_path / name)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="names are not bytes here")
def test_a_run_keeps_files_apart_whose_names_look_alike(
    run: Callable[..., Any], tiny_model: Path, clip_folder: Path, tmp_path: Path
) -> None:
    """Byte FF and the text \\xff, a formula and an escaped one: in the table, the journal and what is resumed."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in NAMES:
        shutil.copy(clip_folder / "z with space.mp4", os.fsencode(clips) + b"/" + name)
    expected = sorted(f"{clips}/{os.fsdecode(name)}" for name in NAMES)
    for ending in (".csv", ".jsonl", ".parquet"):
        table = tmp_path / f"table{ending}"
        command = ("classify", clips, "--model", tiny_model, "--output", table)
        assert run(*command).status == 0
        assert sorted(each["path"] for each in read_table(table)) == expected
        again = run(*command, "--resume")  # no view is looked at, so no runtime is chosen
        assert again.err == f"{len(NAMES)} files: {len(NAMES)} ok ({len(NAMES)} of them done before)\n"
        os.unlink(os.fsencode(clips) + b"/\xff.mp4")  # a changed file is done again, and no other
        shutil.copy(clip_folder / "a.mp4", os.fsencode(clips) + b"/\xff.mp4")
        assert f"({len(NAMES) - 1} of them done before)" in run(*command, "--resume").err
        found = {each["path"]: each["video_num_frames"] for each in read_table(table)}
        assert [name for name, frames in found.items() if frames == 20] == [f"{clips}/\udcff.mp4"]
        shutil.copy(clip_folder / "z with space.mp4", os.fsencode(clips) + b"/\xff.mp4")
    folder = tmp_path / "named"
    folder.mkdir()
    shutil.copy(clip_folder / "z with space.mp4", folder / "=cmd.mp4")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for option, cell in (((), "'=cmd.mp4"), (("--no-csv-escape",), "=cmd.mp4")):
            table = tmp_path / f"cells{len(option)}.csv"
            run("classify", "=cmd.mp4", "--model", tiny_model, "--output", table, *option)
            with open(table, encoding="utf-8", newline="") as file:
                assert [each["path"] for each in csv.DictReader(file)] == [cell]
