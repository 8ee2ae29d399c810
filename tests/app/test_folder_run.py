"""Many clips at once, without a page."""

from __future__ import annotations

import csv
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastapi
import gradio as gr
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from nonlocal_video.app import received
from nonlocal_video.app.callbacks import folder_run
from nonlocal_video.app.callbacks.folder_files import NOTHING, OUTSIDE
from nonlocal_video.app.callbacks.folder_rows import ROWS_AT_ONCE, FolderRows
from nonlocal_video.app.callbacks.folder_run import FolderRuns, Update
from nonlocal_video.app.callbacks.teach_run import Teaching
from nonlocal_video.app.folder_routes import add_folder_routes
from nonlocal_video.app.models import Models
from nonlocal_video.app.received import receive
from nonlocal_video.app.results.store import ResultGoneError, Results
from nonlocal_video.datasets.labelled import read_labelled
from nonlocal_video.inference.recognizer import Recognizer

VISITOR: Any = SimpleNamespace(session_hash="ann")


def chosen(uploads: list[str] | None, folder: str | None) -> Any:
    """Value that the browser sends when clips are dropped, or a folder of the server is chosen."""
    return SimpleNamespace(_data={"folder": folder} if uploads is None else {"paths": uploads})


def run_of(runs: FolderRuns, uploads: list[str] | None, folder: str | None, views: str = "fast") -> Any:
    """The updates of a run, after the one that shows that it will come."""
    first = runs.choose(chosen(uploads, folder), VISITOR)
    assert (first.said["state"], first.table) == ("working", None), "nothing of the run before stays"
    return runs.run("tiny", views, VISITOR)


def error_of(updates: Iterator[Update]) -> str:
    """The headline of a run that failed, and shows nothing else."""
    (update,) = updates
    assert (update.said["state"], update.table) == ("error", None)
    return f"{update.said['headline']} {update.said['doing']}".strip()


@pytest.fixture
def root(clip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "offered"))


@pytest.fixture
def runs(recognizer: Recognizer, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FolderRuns]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(root.parent))  # the tests' uploads lie there
    monkeypatch.setattr(folder_run, "UPDATE_SECONDS", 0.0)  # an update after every file
    results = Results()
    yield FolderRuns({"tiny": recognizer}, FolderRows(results), root)
    results.close()


def shown(runs: FolderRuns, update: Update) -> list[list[Any]]:
    """Cells of the table: path, label, score and error of each row."""
    rows = runs.rows.since(update.table["run"], 0)["rows"][: update.table["count"]]
    return [[row["path"], *(row["top"][0] if row["top"] else ["", None]), row["error"]] for row in rows]


def test_uploads_give_a_row_each_and_three_tables(runs: FolderRuns, recognizer: Recognizer, root: Path) -> None:
    uploads = [str(root / "a.mp4"), str(root / "b" / "note.mp4"), str(root / "z with space.mp4")]
    read: dict[str, list[dict[str, Any]]] = {}
    updates = []
    for update in run_of(runs, uploads, None, "1x1"):
        updates.append(update)
        if isinstance(update.downloads, dict) and update.downloads.get("value"):
            tables = {Path(table).suffix: Path(table) for table in update.downloads["value"]}
            read[".jsonl"] = [json.loads(line) for line in tables[".jsonl"].read_text().splitlines()]
            read[".csv"] = list(csv.DictReader(tables[".csv"].open()))
            read[".parquet"] = pq.read_table(tables[".parquet"]).to_pylist()
    assert [update.table["count"] for update in updates] == [0, 1, 2, 3, 3], "the table grows"
    assert [update.table["running"] for update in updates] == [True] * 4 + [False]
    last = updates[-1]
    assert (last.said["state"], last.said["headline"]) == ("done", "2 clips recognised")
    assert last.said["doing"] == "3 of 3 files: 2 read, 1 not a video."
    names = ["a.mp4", "b/note.mp4", "z with space.mp4"]
    assert [row[0] for row in shown(runs, last)] == names
    best = recognizer.classify(root / "a.mp4").top(1)[0]
    assert shown(runs, last)[0][1:3] == [best.label, round(best.score, 4)]
    assert "not a video" in shown(runs, last)[1][3]
    assert str(root) not in json.dumps(read)
    assert {ending: [row["path"] for row in rows] for ending, rows in read.items()} == dict.fromkeys(read, names)
    assert not tables[".csv"].exists(), "nothing is left behind"
    assert runs.stops == {}


def test_a_folder_of_the_server_is_the_folder_run_of_classify(
    runs: FolderRuns, recognizer: Recognizer, root: Path
) -> None:
    last = list(run_of(runs, None, "."))[-1]
    expected = recognizer.classify_folder(root, fast=True).outcomes
    assert [row[0] for row in shown(runs, last)] == [str(Path(outcome.path).relative_to(root)) for outcome in expected]
    labels = [row["top"][0]["label"] if row["top"] else "" for row in (outcome.to_row() for outcome in expected)]
    assert [row[1] for row in shown(runs, last)] == labels


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
        ("a\ud800b", "is text"),
        ("a\nb", "no folder"),
        ("x" * 5000, "at most 4096 bytes"),
        ("x" * 300, "no folder"),
        ("b/" * 500, "no folder"),
    ],
)
def test_only_folders_below_the_root(runs: FolderRuns, root: Path, tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "private").mkdir()
    (root / "out").symlink_to(tmp_path / "private")
    said = error_of(run_of(runs, None, folder))
    assert message in said
    assert str(tmp_path) not in said


def test_a_link_out_of_the_root_is_not_read_and_gets_its_row(runs: FolderRuns, root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "a.mp4", tmp_path / "private.mp4")
    (root / "b" / "link.mp4").symlink_to(tmp_path / "private.mp4")
    last = list(run_of(runs, None, "b"))[-1]
    rows = {row[0]: row for row in shown(runs, last)}
    assert set(rows) == {"b/c.mp4", "b/link.mp4", "b/note.mp4"}
    assert rows["b/link.mp4"][1] == ""
    assert "link out of the folder" in rows["b/link.mp4"][3]
    assert str(tmp_path) not in str(rows)


def test_a_file_that_becomes_a_link_after_the_check_leads_nowhere(
    runs: FolderRuns, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(root / "b" / "c.mp4", tmp_path / "private.mp4")

    def exchanged_and_received(file: None, path: str, **how: Any) -> Any:
        if path == "b/c.mp4":  # it has been checked, and is not open yet
            (root / path).unlink()
            (root / path).symlink_to(tmp_path / "private.mp4")
        return receive(file, path, **how)

    monkeypatch.setattr(received, "receive", exchanged_and_received)
    last = list(run_of(runs, None, "b"))[-1]
    (row,) = [row for row in shown(runs, last) if row[0] == "b/c.mp4"]
    assert row[1] == ""
    assert "links are not followed" in row[3]


def test_a_file_may_be_a_link_inside_of_the_root(runs: FolderRuns, root: Path) -> None:
    (root / "b" / "link.mp4").symlink_to(root / "a.mp4")
    last = list(run_of(runs, None, "b"))[-1]
    rows = {row[0]: row for row in shown(runs, last)}
    assert rows["b/link.mp4"][1].startswith("action")


def test_copies_of_offered_files_go_with_their_rows(
    runs: FolderRuns, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    for _ in run_of(runs, None, "."):
        pass
    assert list((tmp_path / "copies").iterdir()) == []
    run = run_of(runs, None, ".")
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
    last = list(run_of(runs, None, "b"))[-1]
    assert {row[0] for row in shown(runs, last)} == {"b/c.mp4", "b/note.mp4"}
    assert last.said["headline"] == "1 clip recognised"
    assert last.said["doing"] == (
        "2 of 2 files: 1 read, 1 not a video. Passed over: 2 hidden, 1 links out of the folder, 1 text."
    )
    assert "secret" not in str(last)
    upload = list(run_of(runs, [str(root / "b" / "notes.txt")], None))[-1]
    assert [row[0] for row in shown(runs, upload)] == ["b/notes.txt"]


def test_without_a_root_there_are_no_folders(recognizer: Recognizer, root: Path) -> None:
    runs = FolderRuns({"tiny": recognizer}, FolderRows(Results()))
    assert error_of(run_of(runs, None, str(root))) == NOTHING


def test_a_stop_ends_the_run_after_the_clips_in_hand_and_gives_the_table_so_far(runs: FolderRuns, root: Path) -> None:
    for number in range(20):
        shutil.copy(root / "a.mp4", root / f"a{number}.mp4")
    updates: list[Update] = []
    for update in run_of(runs, None, "."):
        updates.append(update)
        if len(updates) == 3:
            runs.stop(SimpleNamespace(session_hash="ben"))
            runs.stop(VISITOR)
    assert updates[-1].said["headline"].startswith("Stopped: ")
    assert 2 <= len(shown(runs, updates[-1])) <= 2 + 4, "those in hand"
    assert len(updates[-1].downloads["value"]) == 3


def test_uploads_that_were_deleted(runs: FolderRuns, tmp_path: Path) -> None:
    assert "drop it again" in error_of(run_of(runs, [str(tmp_path / "gone.mp4")], None))


def test_only_uploads_are_read(runs: FolderRuns, tmp_path_factory: pytest.TempPathFactory, root: Path) -> None:
    private = shutil.copy(root / "a.mp4", tmp_path_factory.mktemp("private") / "secret.mp4")
    for name in (str(private), *(str(root / odd) for odd in ("a\0b", "\ud800", "x" * 300, "x" * 5000))):
        said = error_of(run_of(runs, [name], None))
        assert "drop it again" in said
        assert "secret" not in said


def test_a_link_to_itself_gets_its_row_and_the_run_goes_on(runs: FolderRuns, root: Path) -> None:
    (root / "b" / "loop.mp4").symlink_to(root / "b" / "loop.mp4")
    (root / "b" / "ping").symlink_to(root / "b" / "pong")
    (root / "b" / "pong").symlink_to(root / "b" / "ping")
    last = list(run_of(runs, None, "b"))[-1]
    rows = {row[0]: row for row in shown(runs, last)}
    assert {"b/c.mp4", "b/note.mp4", "b/loop.mp4"} <= set(rows)
    assert "links are not followed" in rows["b/loop.mp4"][3]
    assert len(last.downloads["value"]) == 3


def test_a_row_has_a_picture_and_opens_its_result(runs: FolderRuns, recognizer: Recognizer, root: Path) -> None:
    last = list(run_of(runs, None, ".", "1x1"))[-1]
    rows = {row["path"]: row for row in runs.rows.since(last.table["run"], 0)["rows"]}
    assert rows["b/note.mp4"]["result"] == ""
    assert rows["a.mp4"]["picture"].startswith("data:image/jpeg;base64,/9j/")
    results = runs.rows.results
    assert len(results) == 0, "nothing is kept before somebody opens it"
    (root / "z with space.mp4").unlink()
    kept = [results.get(rows[name]["result"]) for name in ("a.mp4", "z with space.mp4")]
    assert kept[0].row["top"] == recognizer.classify(root / "a.mp4").to_row()["top"]
    deadline = time.monotonic() + 60
    while not (results.get(kept[0].id).maps and results.get(kept[1].id).words) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert results.get(kept[0].id).maps == ("evidence", "attention")
    assert "no longer there" in results.get(kept[1].id).words
    unopened = rows["b/c.mp4"]["result"]
    runs.leave(VISITOR)
    with pytest.raises(ResultGoneError):
        results.get(unopened)
    assert results.get(kept[0].id).maps, "an opened result stays"


def test_corrections_are_a_csv_that_teach_takes(runs: FolderRuns, root: Path) -> None:
    app = fastapi.FastAPI()
    add_folder_routes(app, runs.rows)
    last = list(run_of(runs, None, "."))[-1]
    run, correct = last.table["run"], runs.rows.functions()[1]
    names = [row["path"] for row in runs.rows.since(run, 0)["rows"]]
    wave, other = names.index("a.mp4"), names.index("b/c.mp4")
    assert correct({"run": run, "row": other, "label": "jump"}) == {"label": "jump", "count": 1}
    assert correct({"run": run, "row": wave, "label": "x" * 999}) == {"label": "x" * 200, "count": 2}
    assert correct({"run": run, "row": wave, "label": " "}) == {"label": "", "count": 1}
    assert correct({"run": run, "row": wave, "label": ' wave,  "hi"\n'}) == {"label": 'wave, "hi"', "count": 2}
    assert correct({"run": "x", "row": 0, "label": "a"}) == correct({"run": run, "row": 99, "label": "a"})
    client = TestClient(app)
    assert client.get("/folder/x/corrections.csv").status_code == 404
    (root / "corrections.csv").write_bytes(client.get(f"/folder/{run}/corrections.csv").content)
    clips = {Path(clip.path): clip.label for clip in read_labelled(root / "corrections.csv")}
    assert clips == {root / "a.mp4": 'wave, "hi"', root / "b" / "c.mp4": "jump"}


def test_rows_come_some_at_a_time_and_of_the_last_runs_only(runs: FolderRuns) -> None:
    rows: Any = runs.rows
    first = rows.begin("ann", ("a", "b"), None)
    first.rows += [{"path": str(number), "result": ""} for number in range(ROWS_AT_ONCE + 5)]
    begun = rows.since(first.id, 0)
    assert (len(begun["rows"]), begun["labels"]) == (ROWS_AT_ONCE, ("a", "b"))
    assert [row["path"] for row in rows.since(first.id, ROWS_AT_ONCE)["rows"]] == ["200", "201", "202", "203", "204"]
    for number in range(16):
        rows.begin(f"other {number}", (), None)
    assert rows.since(first.id, 0) == {"gone": True, "rows": []}


def test_the_time_left_is_said_in_words(runs: FolderRuns, root: Path) -> None:
    for number in range(5):
        shutil.copy(root / "a.mp4", root / f"a{number}.mp4")
    said = [update.said["doing"] for update in run_of(runs, None, ".")]
    assert said[0] == "0 of 9 files"
    assert re.fullmatch(r"5 of 9 files, about \d+ s left", said[5])


def test_other_clips_take_the_place_of_those_before_at_any_time(runs: FolderRuns, root: Path) -> None:
    first = run_of(runs, None, ".")
    next(first), next(first)
    second = run_of(runs, [str(root / "a.mp4")], None)
    third = run_of(runs, [str(root / "z with space.mp4")], None)
    assert list(first) == [], "it ends, and says nothing more"
    assert [row[0] for row in shown(runs, list(second)[-1])] == ["z with space.mp4"], "what was chosen last"
    assert list(third) == [], "that was done already"
    again = runs.again(VISITOR)
    assert again.said["state"] == "working"
    assert list(runs.run("tiny", "fast", VISITOR))[-1].said["headline"] == "1 clip recognised"


def test_corrected_clips_are_taught(
    runs: FolderRuns, recognizer: Recognizer, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    teaching = Teaching(Models([recognizer]))
    run = list(run_of(runs, None, "."))[-1].table["run"]
    event: Any = SimpleNamespace(_data={"run": run})
    with pytest.raises(gr.Error, match="Put a label right"):
        teaching.take(runs.rows, event, VISITOR)
    names = [row["path"] for row in runs.rows.since(run, 0)["rows"]]
    for name, label in (("a.mp4", "wave"), ("b/c.mp4", "jump"), ("z with space.mp4", "jump")):
        runs.rows.correct(run, names.index(name), label)
    with pytest.raises(gr.Error, match="expired"):
        teaching.take(runs.rows, event, SimpleNamespace(session_hash="ben"))

    def taught() -> dict[str, list[str]]:
        state = json.loads(teaching.take(runs.rows, event, VISITOR))
        return {one["name"]: [clip["name"] for clip in one["clips"]] for one in state["classes"]}

    assert taught() == {"wave": ["a.mp4"], "jump": ["c.mp4", "z with space.mp4"]}
    runs.rows.correct(run, names.index("b/c.mp4"), "wave")
    assert taught() == {"wave": ["a.mp4", "c.mp4"], "jump": ["z with space.mp4"]}, "again: no clip twice"
    visit = teaching.visits.of(VISITOR)
    assert {clip.read_bytes() for clip, _ in visit.examples()} == {
        (root / name).read_bytes() for name in ("a.mp4", "b/c.mp4", "z with space.mp4")
    }
    assert all(clip.is_relative_to(visit.folder) for clip, _ in visit.examples()), "copies, which go with the visit"
    said = [json.loads(update.shown)["says"] for update in teaching.learn(VISITOR)]
    assert said[-1].startswith("2 actions, 3 clips: ")
    before = visit.clips
    runs.rows.correct(run, names.index("a.mp4"), "x" * 61)
    with pytest.raises(gr.Error, match="1 to 60 letters"):
        teaching.take(runs.rows, event, VISITOR)
    assert visit.clips == before, "all or nothing"
