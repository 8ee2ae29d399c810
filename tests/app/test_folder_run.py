"""Many clips at once, without a page."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pyarrow.parquet as pq
import pytest

from nonlocal_video.app.callbacks import folder_run
from nonlocal_video.app.callbacks.folder_run import HEADERS, NOTHING, OUTSIDE, FolderRuns, Update
from nonlocal_video.inference.recognizer import Recognizer

VISITOR: Any = SimpleNamespace(session_hash="ann")


@pytest.fixture
def root(clip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "offered"))


@pytest.fixture
def runs(recognizer: Recognizer, root: Path, monkeypatch: pytest.MonkeyPatch) -> FolderRuns:
    monkeypatch.setattr(folder_run, "UPDATE_SECONDS", 0.0)  # an update after every file
    return FolderRuns({"tiny": recognizer}, root)


def shown(update: Update) -> list[list[Any]]:
    """What the table shows."""
    assert update.table["visible"] is bool(update.table["value"])
    rows: list[list[Any]] = update.table["value"]
    return rows


def test_uploads_give_a_row_each_and_three_tables(runs: FolderRuns, recognizer: Recognizer, root: Path) -> None:
    uploads = [str(root / "a.mp4"), str(root / "b" / "note.mp4"), str(root / "z with space.mp4")]
    read: dict[str, list[dict[str, Any]]] = {}
    updates = []
    for update in runs.run(uploads, None, "tiny", "1x1", VISITOR):
        updates.append(update)
        if isinstance(update.downloads, dict) and update.downloads.get("value"):
            tables = {Path(table).suffix: Path(table) for table in update.downloads["value"]}
            read[".jsonl"] = [json.loads(line) for line in tables[".jsonl"].read_text().splitlines()]
            read[".csv"] = list(csv.DictReader(tables[".csv"].open()))
            read[".parquet"] = pq.read_table(tables[".parquet"]).to_pylist()
    assert [len(shown(update)) for update in updates] == [0, 1, 2, 3, 3], "the table grows"
    last = updates[-1]
    assert last.status == "Done. 3 of 3 files: 2 ok, 1 not_a_video."
    names = ["a.mp4", "b/note.mp4", "z with space.mp4"]
    assert [row[0] for row in shown(last)] == names
    assert all(len(row) == len(HEADERS) for row in shown(last))
    best = recognizer.classify(root / "a.mp4").top(1)[0]
    assert shown(last)[0][1:3] == [best.label, round(best.score, 3)]
    assert "not a video" in shown(last)[1][3]
    assert str(root) not in json.dumps(read)
    assert {ending: [row["path"] for row in rows] for ending, rows in read.items()} == dict.fromkeys(read, names)
    assert not tables[".csv"].exists(), "nothing is left behind"
    assert runs.stops == {}


def test_a_folder_of_the_server_is_the_folder_run_of_classify(
    runs: FolderRuns, recognizer: Recognizer, root: Path
) -> None:
    last = list(runs.run(None, ".", "tiny", "fast", VISITOR))[-1]
    expected = recognizer.classify_folder(root, fast=True).outcomes
    assert [row[0] for row in shown(last)] == [str(Path(outcome.path).relative_to(root)) for outcome in expected]
    labels = [row["top"][0]["label"] if row["top"] else "" for row in (outcome.to_row() for outcome in expected)]
    assert [row[1] for row in shown(last)] == labels


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("..", OUTSIDE),
        ("/", OUTSIDE),
        ("b/../../..", OUTSIDE),
        ("out", OUTSIDE),
        ("c", "no folder"),
        ("", NOTHING),
        ("a\0b", "none of them NUL"),
        ("x" * 5000, "at most 4096 bytes"),
        ("x" * 300, "no folder"),
        ("b/" * 500, "no folder"),
    ],
)
def test_only_folders_below_the_root(runs: FolderRuns, root: Path, tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "private").mkdir()
    (root / "out").symlink_to(tmp_path / "private")
    with pytest.raises(gr.Error, match=message) as raised:
        list(runs.run(None, folder, "tiny", "fast", VISITOR))
    assert str(tmp_path) not in raised.value.message


def test_a_link_out_of_the_root_is_not_read_and_gets_its_row(runs: FolderRuns, root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "a.mp4", tmp_path / "private.mp4")
    (root / "b" / "link.mp4").symlink_to(tmp_path / "private.mp4")
    last = list(runs.run(None, "b", "tiny", "fast", VISITOR))[-1]
    rows = {row[0]: row for row in shown(last)}
    assert set(rows) == {"b/c.mp4", "b/link.mp4", "b/note.mp4"}
    assert rows["b/link.mp4"][1] == ""
    assert "link out of the folder" in rows["b/link.mp4"][3]
    assert str(tmp_path) not in str(rows)


def test_a_file_that_becomes_a_link_after_the_check_leads_nowhere(
    runs: FolderRuns, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(root / "b" / "c.mp4", tmp_path / "private.mp4")
    resolve = Path.resolve

    def resolved_and_exchanged(path: Path, strict: bool = False) -> Path:
        real = resolve(path, strict)
        if real.name == "c.mp4":
            path.unlink()
            path.symlink_to(tmp_path / "private.mp4")
        return real

    monkeypatch.setattr(Path, "resolve", resolved_and_exchanged)
    last = list(runs.run(None, "b", "tiny", "fast", VISITOR))[-1]
    (row,) = [row for row in shown(last) if row[0] == "b/c.mp4"]
    assert row[1] == ""
    assert "links are not followed" in row[3]


def test_a_file_may_be_a_link_inside_of_the_root(runs: FolderRuns, root: Path) -> None:
    (root / "b" / "link.mp4").symlink_to(root / "a.mp4")
    last = list(runs.run(None, "b", "tiny", "fast", VISITOR))[-1]
    rows = {row[0]: row for row in shown(last)}
    assert rows["b/link.mp4"][1].startswith("action")


def test_copies_of_offered_files_go_with_their_rows(
    runs: FolderRuns, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    for _ in runs.run(None, ".", "tiny", "fast", VISITOR):
        pass
    assert list((tmp_path / "copies").iterdir()) == []
    run = runs.run(None, ".", "tiny", "fast", VISITOR)
    for _ in range(2):
        next(run)
    run.close()  # the visitor has left
    assert list((tmp_path / "copies").iterdir()) == []


def test_strays_are_passed_over_and_links_to_folders_outside_are_not_followed(
    runs: FolderRuns, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "private").mkdir()
    shutil.copy(root / "a.mp4", tmp_path / "private" / "secret.mp4")
    (root / "b" / "out").symlink_to(tmp_path / "private")
    for name in (".DS_Store", "notes.txt", "._c.mp4"):
        (root / "b" / name).write_text("x")
    last = list(runs.run(None, "b", "tiny", "fast", VISITOR))[-1]
    assert {row[0] for row in shown(last)} == {"b/c.mp4", "b/note.mp4"}
    assert last.status == (
        "Done. 2 of 2 files: 1 ok, 1 not_a_video. Passed over: 2 hidden, 1 links out of the folder, 1 text."
    )
    assert "secret" not in str(last)
    upload = list(runs.run([str(root / "b" / "notes.txt")], None, "tiny", "fast", VISITOR))[-1]
    assert [row[0] for row in shown(upload)] == ["b/notes.txt"]


def test_without_a_root_there_are_no_folders(recognizer: Recognizer, root: Path) -> None:
    runs = FolderRuns({"tiny": recognizer})
    with pytest.raises(gr.Error, match=NOTHING):
        list(runs.run(None, str(root), "tiny", "fast", VISITOR))


def test_a_stop_ends_the_run_after_the_clips_in_hand_and_gives_the_table_so_far(runs: FolderRuns, root: Path) -> None:
    for number in range(20):
        shutil.copy(root / "a.mp4", root / f"a{number}.mp4")
    updates: list[Update] = []
    for update in runs.run(None, ".", "tiny", "fast", VISITOR):
        updates.append(update)
        if len(updates) == 3:
            runs.stop(SimpleNamespace(session_hash="ben"))
            runs.stop(VISITOR)
    assert updates[-1].status.startswith("Stopped. ")
    assert 2 <= len(shown(updates[-1])) <= 2 + 4, "those in hand"
    assert len(updates[-1].downloads["value"]) == 3


def test_uploads_that_were_deleted(runs: FolderRuns, tmp_path: Path) -> None:
    with pytest.raises(gr.Error, match="upload it again"):
        list(runs.run([str(tmp_path / "gone.mp4")], None, "tiny", "fast", VISITOR))
