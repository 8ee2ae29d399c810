"""Clips of a folder that refine each other: the formula restated, whatever the table, cut off and continued or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nonlocal_video as nlv
from nonlocal_video.inference.files import Selection
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.result_table import read_table

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def alone(recognizer: Recognizer, clip_folder: Path) -> list[Any]:
    """Predictions and a failure, each clip by itself, in the order of the folder."""
    return list(recognizer.classify_folder(clip_folder).outcomes)


def expected_scores(predictions: list[nlv.Prediction]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(clips, classes), restated."""
    rows = np.stack([p.features for p in predictions if p.features is not None]).astype(float)
    z = rows - len(rows) / (len(rows) + 8) * rows.mean(axis=0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    weights = np.exp(5 * z @ z.T)
    roots = np.sqrt(np.stack([p.scores for p in predictions]))
    means = (weights / weights.sum(axis=1, keepdims=True)) @ (roots / roots.sum(axis=1, keepdims=True))
    return np.asarray(means**2 / (means**2).sum(axis=1, keepdims=True))


def scores_of(row: dict[str, Any], labels: tuple[str, ...]) -> list[float]:
    assert [labels[s["index"]] for s in row["top"]] == [s["label"] for s in row["top"]]
    assert [s["score"] for s in row["top"]] == sorted((s["score"] for s in row["top"]), reverse=True)
    return [s["score"] for s in sorted(row["top"], key=lambda s: s["index"])]


def check(rows: list[dict[str, Any]], alone: list[Any]) -> None:
    """One final row a file: refined where there is an answer, an error as it was."""
    answered = [outcome for outcome in alone if isinstance(outcome, nlv.Prediction)]
    expected = iter(expected_scores(answered))
    assert [row["path"] for row in rows] == [outcome.path for outcome in alone]
    for row, outcome in zip(rows, alone, strict=True):
        if isinstance(outcome, nlv.Failure):
            assert row == outcome.to_row()
            continue
        np.testing.assert_allclose(scores_of(row, outcome.labels), next(expected), atol=1e-5)
        assert row["notes"] == [*outcome.notes, f"Refined by the {len(answered) - 1} other clips of the run."]
        assert set(row) == set(outcome.to_row())


def test_in_python(recognizer: Recognizer, clip_folder: Path, alone: list[Any]) -> None:
    found = recognizer.classify_folder(clip_folder, context="folder", top_k=7)
    check(list(found), alone)
    differences = [
        np.abs(one.scores - other.scores).max()
        for one, other in zip(found.outcomes, alone, strict=True)
        if isinstance(one, nlv.Prediction)
    ]
    assert len(differences) == 3
    assert min(differences) > 1e-4  # so the comparison means something


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.slow
def test_tables_cut_off_and_continued(
    recognizer: Recognizer, clip_folder: Path, alone: list[Any], tmp_path: Path, ending: str
) -> None:
    output = tmp_path / f"t.{ending}"
    first = Selection(include=("c.mp4", "note.mp4"))
    recognizer.classify_folder(clip_folder, output=output, context="folder", top_k=7, selection=first)
    found = recognizer.classify_folder(clip_folder, output=output, context="folder", top_k=7, resume=True)
    assert (found.counts["ok"], found.done_before["ok"]) == (2, 1)
    order = {outcome.path: number for number, outcome in enumerate(alone)}
    check(sorted(found, key=lambda row: order[row["path"]]), alone)
    for flat, row in zip(read_table(output), found, strict=True):
        assert (flat["path"], flat["status"]) == (row["path"], row["status"])
        if row["top"]:
            assert (flat["top1_label"], flat["top1_score"]) == (row["top"][0]["label"], row["top"][0]["score"])


def test_the_command_prints_final_rows_alone(
    run: Run, unsure_model: Path, clip_folder: Path, alone: list[Any], tmp_path: Path
) -> None:
    given = ("classify", clip_folder, "--model", unsure_model, "--context", "folder", "--top-k", 7)
    done = run(*given, "--json")
    assert done.status == 1  # the note that is no video
    check([json.loads(line) for line in done.out.splitlines()], alone)
    shown = run(*given, "--output", tmp_path / "t.jsonl")
    assert shown.out.count("Refined by the 2 other clips of the run.") == 3
    assert f"{clip_folder / 'b' / 'note.mp4'}\n  not_a_video: " in shown.out
    lines = (tmp_path / "t.jsonl").read_text("utf-8").splitlines()
    check([json.loads(line) for line in lines], alone)


def test_a_shard_is_a_run_of_its_own(recognizer: Recognizer, clip_folder: Path, alone: list[Any]) -> None:
    paths = []
    for k in (1, 2):
        rows = list(
            recognizer.classify_folder(clip_folder, context="folder", top_k=7, selection=Selection(shard=(k, 2)))
        )
        paths += [row["path"] for row in rows]
        answered = [o for o in alone if isinstance(o, nlv.Prediction) and o.path in {row["path"] for row in rows}]
        expected = iter(expected_scores(answered)) if answered else iter(())
        for row in rows:
            if row["status"] == "ok":
                np.testing.assert_allclose(scores_of(row, answered[0].labels), next(expected), atol=1e-5)
    assert sorted(paths) == sorted(outcome.path for outcome in alone)


def test_contexts_are_not_mixed_in_a_table(run: Run, unsure_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    given = ("classify", clip_folder / "a.mp4", "--model", unsure_model, "--output", tmp_path / "t.csv")
    assert run(*given).status == 0
    done = run(*given, "--context", "folder", "--resume")
    assert done.status == 2
    assert "context was None and is 'folder'" in done.err
    assert "action 1" not in done.err
    done = run(*given[:-2], "--context", "folder", "--engine", "ray", "--json")
    assert (done.status, done.err) == (2, "--context folder needs all clips in one place; leave out --engine ray.\n")
    with (
        pytest.raises(nlv.UsageError, match="context = 'some' should be one of none, folder"),
        nlv.load(unsure_model) as r,
    ):
        r.classify_folder(clip_folder, context="some")


def test_evaluate_measures_the_refined_answers(
    run: Run, unsure_model: Path, clip_folder: Path, alone: list[Any], tmp_path: Path
) -> None:
    answered = [outcome for outcome in alone if isinstance(outcome, nlv.Prediction)]
    source = tmp_path / "clips.csv"
    source.write_text("path,label\n" + "".join(f"{outcome.path},action 2\n" for outcome in answered))
    given = ("evaluate", source, "--model", unsure_model, "--context", "folder")
    printed = run(*given, "--json")
    assert printed.status == 0, printed.err
    assert json.loads(printed.out)["context"] == "folder"
    assert run(*given, "--output", tmp_path / "report").status == 0
    rows = [json.loads(line) for line in (tmp_path / "report" / "predictions.jsonl").read_text().splitlines()]
    for row, scores in zip(rows, expected_scores(answered), strict=True):
        assert row["true_score"] == pytest.approx(scores[2], abs=1e-5)
        assert row["true_rank"] == 1 + int((scores > scores[2] + 1e-7).sum())
        assert row["top"][0]["score"] == pytest.approx(scores.max(), abs=1e-5)
    with_table = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert with_table == json.loads(printed.out)
    for wrong in (("--context", "nonlocal"), ("--segments", "--context", "folder")):
        done = run(*given[:-2], *wrong)
        assert done.status == 2
        assert "should be one of" in done.err
