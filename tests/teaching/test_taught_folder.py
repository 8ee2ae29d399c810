"""A folder asked of a taught run: each side's mean is subtracted, whichever way the rows are made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from colour_clips import COLOURS, write_colour

import nonlocal_video as nlv
from nonlocal_video.inference.context import refined
from nonlocal_video.inference.result_table import read_table
from nonlocal_video.models.taught import mean_share
from nonlocal_video.teaching.api import TaughtRun

DARKER = {name: tuple(value // 3 for value in colour) for name, colour in COLOURS.items()}


@pytest.fixture(scope="module")
def dark(tmp_path_factory) -> Path:
    """Three clips of each colour in the dark."""
    folder = tmp_path_factory.mktemp("dark")
    for number, (label, colour) in enumerate(DARKER.items()):
        for clip in range(3):
            write_colour(folder / label / f"{clip}.mp4", colour, 200 + 10 * number + clip)
    return folder


@pytest.fixture(scope="module")
def recognizer(run: TaughtRun):
    with nlv.load(run, device="cpu") as loaded:
        yield loaded


def test_a_table_its_journal_and_memory_agree(recognizer, dark: Path, tmp_path: Path) -> None:
    in_memory = {row["path"]: row for row in recognizer.classify_folder(dark, context="folder")}
    table = recognizer.classify_folder(dark, context="folder", output=tmp_path / "t.csv")
    for row in table:  # from the journal
        expected = in_memory[row["path"]]
        assert (row["unknown"], row["notes"]) == (expected["unknown"], expected["notes"])
        assert [one["label"] for one in row["top"]] == [one["label"] for one in expected["top"]]
        np.testing.assert_allclose(row["top"][0]["score"], expected["top"][0]["score"], atol=1e-6)
    assert {row["path"]: row["unknown"] for row in read_table(tmp_path / "t.csv")} == {
        path: row["unknown"] for path, row in in_memory.items()
    }


def test_the_mean_is_subtracted_and_then_the_clips_refine_each_other(recognizer, dark: Path) -> None:
    alone = recognizer.classify_folder(dark).outcomes
    together = recognizer.classify_folder(dark, context="folder").outcomes
    logits = np.stack([one.logits for one in alone]).astype(np.float64)
    features = np.stack([one.features for one in alone])
    mean = logits.mean(axis=0)
    moved = logits - 9 / 17 * (mean - mean.mean())
    assert mean_share(9) == 9 / 17
    expected = refined(moved.astype(np.float32), features)
    np.testing.assert_allclose(np.stack([one.scores for one in together]), expected, atol=1e-6)
    assert all(any("Less 53% of the mean of the 9 clips" in note for note in one.notes) for one in together)
    right = [one.top1.label == Path(one.path).parent.name for one in together]
    assert sum(right) >= sum(one.top1.label == Path(one.path).parent.name for one in alone)


def test_lopsided_and_small_folders_get_a_note(recognizer, dark: Path, tmp_path: Path) -> None:
    for clip in range(9):
        write_colour(tmp_path / "red" / f"{clip}.mp4", COLOURS["red"], 300 + clip)
    rows = list(recognizer.classify_folder(tmp_path / "red", context="folder"))
    assert all(any(note.startswith("Lopsided: by themselves 9 of the 9") for note in row["notes"]) for row in rows)
    rows = list(recognizer.classify_folder(dark / "red", context="folder"))
    assert all(any("3 clips of up to 3 classes are few" in note for note in row["notes"]) for row in rows)


def test_one_clip_alone_keeps_most_of_its_answer(recognizer, dark: Path) -> None:
    (together,) = recognizer.classify_folder(dark / "red" / "0.mp4", context="folder").outcomes
    alone = recognizer.classify(dark / "red" / "0.mp4")
    assert together.top1.label == alone.top1.label


def test_evaluate_takes_it(run: TaughtRun, dark: Path, tmp_path: Path) -> None:
    written = nlv.evaluate(dark, model=run, device="cpu", context="folder", output=tmp_path / "report")
    in_memory = nlv.evaluate(dark, model=run, device="cpu", context="folder")
    assert written.metrics is not None
    assert in_memory.metrics is not None
    np.testing.assert_array_equal(written.metrics.confusion, in_memory.metrics.confusion)
    lines = [json.loads(line) for line in (tmp_path / "report" / "predictions.jsonl").read_text().splitlines()]
    assert {type(line["unknown"]) for line in lines} == {bool}


def test_resuming_with_another_lesson_is_refused_without_its_numbers(recognizer, dark: Path, tmp_path: Path) -> None:
    recognizer.classify_folder(dark / "red", context="folder", output=tmp_path / "t.jsonl")
    with pytest.raises(nlv.UsageError) as refused:
        recognizer.classify_folder(dark / "red", output=tmp_path / "t.jsonl", resume=True)
    assert len(str(refused.value)) < 400
