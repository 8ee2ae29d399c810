"""The one run over many files, from Python."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import nonlocal_video as nlv
from nonlocal_video.inference.batch_run import BatchProgress, BatchRun, FolderOptions, run_folder
from nonlocal_video.inference.prediction import Failure, Prediction
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.results import ResultFile

NAMES = ["a.mp4", "b/c.mp4", "b/note.mp4", "z with space.mp4"]


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Iterator[nlv.Recognizer]:
    with nlv.load(tiny_model, device="cpu") as loaded:
        yield loaded


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "clips"))


def test_a_folder_without_a_table_gives_its_outcomes(recognizer: nlv.Recognizer, folder: Path) -> None:
    seen: list[BatchProgress] = []
    result = recognizer.classify_folder(folder, top_k=2, on_progress=seen.append)
    assert [str(Path(outcome.path).relative_to(folder)) for outcome in result.outcomes] == NAMES
    assert [type(outcome) for outcome in result.outcomes] == [Prediction, Prediction, Failure, Prediction]
    assert (result.counts, result.done_before) == ({"ok": 3, "not_a_video": 1}, {})
    assert len(result) == 4
    assert [row["path"] for row in result] == [outcome.path for outcome in result.outcomes]
    assert [len(step.row["top"]) for step in seen] == [2, 2, 0, 2]
    assert [step.outcome for step in seen] == list(result.outcomes)


def test_python_and_the_command_go_on_with_each_others_tables(
    run, recognizer: nlv.Recognizer, folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    table = tmp_path / "actions.csv"
    shutil.move(folder / "z with space.mp4", tmp_path / "later.mp4")
    first = recognizer.classify_folder(folder, output=table)
    assert (first.counts, first.outcomes) == ({"ok": 2, "not_a_video": 1}, ())
    shutil.move(tmp_path / "later.mp4", folder / "z with space.mp4")
    done = run("classify", folder, "--model", tiny_model, "--device", "cpu", "--output", table, "--resume")
    assert "4 files: 3 ok, 1 not_a_video (3 of them done before)" in done.err
    again = recognizer.classify_folder(str(folder), output=str(table), resume=True)
    assert (again.counts, again.done_before) == ({}, {"ok": 3, "not_a_video": 1})
    with open(table, newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [row["path"] for row in again] == [row["path"] for row in written]
    assert sorted(row["path"] for row in written) == sorted(str(folder / name) for name in NAMES)
    with pytest.raises(nlv.UsageError, match="top_k was 5 and is 3"):
        recognizer.classify_folder(folder, output=table, resume=True, top_k=3)


def test_a_table_of_python_is_the_table_of_the_command(
    run, recognizer: nlv.Recognizer, folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    ours = recognizer.classify_folder(folder, output=tmp_path / "ours.jsonl", views="2x3", fast=True)
    run(
        "classify", folder, "--model", tiny_model, "--device", "cpu", "--views", "2x3", "--fast", "--output",
        tmp_path / "theirs.jsonl",
    )  # fmt: skip
    tables = [
        [json.loads(line) | {"seconds": None} for line in (tmp_path / name).read_text().splitlines()]
        for name in ("ours.jsonl", "theirs.jsonl")
    ]
    assert tables[0] == tables[1]
    assert [row | {"seconds": None} for row in ours] == tables[0]
    journals = [(tmp_path / f"{name}.jsonl.journal").read_text().splitlines()[0] for name in ("ours", "theirs")]
    assert journals[0] == journals[1], "the same settings"


def test_a_file_that_changed_is_one_row_of_the_result(recognizer: nlv.Recognizer, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "actions.parquet"
    recognizer.classify_folder(folder, output=table)
    shutil.copy(folder / "a.mp4", folder / "b" / "note.mp4")
    result = recognizer.classify_folder(folder, output=table, resume=True)
    assert (result.counts, result.done_before) == ({"ok": 1}, {"ok": 3})
    assert {row["path"]: row["status"] for row in result} == {str(folder / name): "ok" for name in NAMES}


def test_a_stop_keeps_the_rows_and_resume_does_the_rest(
    recognizer: nlv.Recognizer, folder: Path, tmp_path: Path
) -> None:
    for number in range(10):
        shutil.copy(folder / "a.mp4", folder / f"a{number}.mp4")
    table = tmp_path / "actions.jsonl"
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_folder(
            recognizer,
            [folder],
            ClipRequest(),
            FolderOptions(output=table),
            should_stop=lambda: len(seen) >= 2,
            on_progress=lambda step: seen.append(step.outcome.path),
        )
    assert 2 <= len(seen) < 14
    assert not table.exists()
    result = recognizer.classify_folder(folder, output=table, resume=True)
    assert result.done_before.total() == len(seen)
    assert len(table.read_text().splitlines()) == len(result) == 14


def test_resume_without_a_table_is_refused(recognizer: nlv.Recognizer, folder: Path) -> None:
    with pytest.raises(nlv.UsageError, match="name it with output"):
        recognizer.classify_folder(folder, resume=True)


def test_a_refused_file_is_a_row_in_its_place(recognizer: nlv.Recognizer, folder: Path, tmp_path: Path) -> None:
    refused = Failure("secret.mp4", "tiny", nlv.VideoError("not_found", "secret.mp4 is not for you."))
    files = [str(folder / "a.mp4"), refused, str(folder / "b" / "c.mp4")]
    with ResultFile(tmp_path / "t.jsonl", {}, top_k=5, resume=False) as table:
        steps = list(BatchRun(recognizer, files, ClipRequest(), tables=[table], batch_size=3))
    assert [outcome.path for outcome, _ in steps] == [files[0], "secret.mp4", files[2]]
    assert steps[1][0] is refused
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [files[0], "secret.mp4", files[2]]
