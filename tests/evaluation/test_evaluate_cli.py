"""`nonlocal-video evaluate` as a user meets it."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

import nonlocal_video as nlv
from nonlocal_video.cli.main import app
from nonlocal_video.datasets.labelled import read_labelled
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.models.card import Accuracy
from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint

Run = Callable[..., Any]  # the fixture `run`


@pytest.fixture(scope="module")
def predictions(tiny_model: Path, clip_folder: Path) -> dict[str, Prediction]:
    with nlv.load(tiny_model, device="cpu") as recognizer:
        return {name: recognizer.classify(clip_folder / name) for name in ("a.mp4", "b/c.mp4", "z with space.mp4")}


@pytest.fixture(scope="module")
def labelled(clip_folder: Path, predictions: dict[str, Prediction], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders in which the model answers a.mp4 rightly, c.mp4 and z.mp4 wrongly, and one clip is broken."""
    folder = tmp_path_factory.mktemp("labelled")
    places = {"a.mp4": 1, "b/c.mp4": 3, "z with space.mp4": 7}
    for name, place in places.items():
        label = predictions[name].top(7)[place - 1].label
        into = folder / label.replace(" ", "_").upper()
        into.mkdir(exist_ok=True)
        shutil.copy(clip_folder / name, into / Path(name).name)
    shutil.copy(clip_folder / "b" / "note.mp4", into / "note.mp4")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_python_gives_what_the_command_prints(run: Run, tiny_model: Path, labelled: Path) -> None:
    done = run("evaluate", labelled, "--model", tiny_model, "--device", "cpu", "--json")
    counts: list[int] = []

    class Counting(nlv.EvaluationCallback):
        def on_progress(self, found: Any, done_before: int, total: int) -> None:
            counts.append(found.total())

    evaluation = nlv.evaluate(labelled, model=tiny_model, device="cpu", callback=Counting())
    assert json.loads(json.dumps(evaluation.summary())) == json.loads(done.out)
    assert counts == [1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        nlv.evaluate(labelled, model=tiny_model, device="cpu", should_stop=lambda: True)


def test_figures_files_and_the_scores_of_the_recogniser(run: Run, tiny_model, labelled, predictions, tmp_path) -> None:
    output = tmp_path / "out"
    done = run("evaluate", labelled, "--model", tiny_model, "--device", "cpu", "--output", output, "--batch-size", 2)
    assert done.status == 1  # a clip could not be read
    assert "tiny, 1x1 views: 4 clips, 3 of 7 classes, 1 unreadable (1 not_a_video), 3 groups" in done.out
    assert "unreadable as wrong" in done.out
    assert "note.mp4: not_a_video: " in done.out

    summary = json.loads((output / "summary.json").read_text())
    assert (summary["model"], summary["views"], summary["clips"], summary["unreadable"]) == ("tiny", "1x1", 4, 1)
    top1, top5 = (summary["accuracy_percent"][name] for name in ("top1", "top5"))
    assert (top1["value"], top1["unreadable_as_wrong"]) == (33.333, 25.0)
    assert (top5["value"], top5["unreadable_as_wrong"]) == (66.667, 50.0)

    rows = {Path(row["path"]).name: row for row in rows_of(output / "predictions.csv")}
    assert {name: row["true_rank"] for name, row in rows.items()} == {
        "a.mp4": "1", "c.mp4": "3", "z with space.mp4": "7", "note.mp4": "",
    }  # fmt: skip
    for name, prediction in predictions.items():
        row = rows[Path(name).name]
        expected = prediction.top(5)
        assert [row[f"top{rank}_label"] for rank in range(1, 6)] == [scored.label for scored in expected]
        scores = [float(row[f"top{rank}_score"]) for rank in range(1, 6)]
        np.testing.assert_allclose(scores, [scored.score for scored in expected], atol=1e-6)
        assert float(row["true_score"]) == pytest.approx(
            prediction.scores[prediction.labels.index(row["label"])], abs=1e-6
        )
    assert (output / "confusion.csv").is_file()
    assert (output / "confusion.png").is_file()


def test_csv_with_groups_and_splits_and_json_without_files(
    run: Run, tiny_model, clip_folder, predictions, tmp_path
) -> None:
    def right(name: str) -> str:
        return predictions[name].top(1)[0].label

    lines = [
        f"{clip_folder}/a.mp4,{right('a.mp4')},s1,val",
        f"{clip_folder}/b/c.mp4,{right('b/c.mp4')},s1,val",
        f"{clip_folder}/z with space.mp4,{right('z with space.mp4')},s2,train",
    ]
    table = tmp_path / "clips.csv"
    table.write_text("\n".join(["path,label,group,split", *lines]) + "\n")
    done = run("evaluate", table, "--model", tiny_model, "--split", "val", "--json", "--runtime", "torch")
    assert (done.status, done.err) == (0, "")
    summary = json.loads(done.out)
    assert (summary["clips"], summary["groups"], summary["split"]) == (2, 1, "val")
    assert summary["accuracy_percent"]["top1"] == {
        "value": 100.0, "interval_95": None, "unreadable_as_wrong": 100.0,
    }  # fmt: skip
    both = run("evaluate", table, "--model", tiny_model, "--json", "--fast")
    assert json.loads(both.out)["clips"] == 3
    assert "All splits are measured together: train, val." in both.err


def test_resume_keeps_the_answers_and_refuses_other_clips(run: Run, tiny_model, labelled, tmp_path) -> None:
    command = ("evaluate", labelled, "--model", tiny_model, "--output", tmp_path / "out")
    assert run(*command).status == 1
    first = (tmp_path / "out" / "predictions.csv").read_bytes()
    refused = run(*command)
    assert refused.status == 2
    assert "--resume" in refused.err
    journal = tmp_path / "out" / "predictions.jsonl.journal"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:3]))  # as if killed after two clips
    for written in (tmp_path / "out").iterdir():
        if written != journal:
            written.unlink()
    kept = journal.read_bytes()
    assert run(*command, "--resume").status == 1
    assert journal.read_bytes().startswith(kept)
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == first

    a_clip = next(labelled.glob("*/a.mp4"))
    fewer = tmp_path / "clips.csv"
    fewer.write_text(f"path,label\n{a_clip},{a_clip.parent.name}\n")
    other = run("evaluate", fewer, "--model", tiny_model, "--output", tmp_path / "out", "--resume")
    assert other.status == 2
    assert "labelled_clips_sha256 was" in other.err


@pytest.mark.slow
def test_published_protocol_takes_the_cards_views_and_shows_its_figures(
    run: Run, tiny_model, labelled, tmp_path
) -> None:
    network, card = load_checkpoint(tiny_model)
    published = tmp_path / "published.safetensors"
    card = replace(card, published=Accuracy(top1=61.5, top5=88.25, views="2x3"))
    save_checkpoint(published, network, card, dtype=torch.float32)
    command = ("evaluate", labelled, "--model", published, "--protocol", "published")
    done = run(*command)
    assert done.status == 1
    assert "2x3 views" in done.out
    assert "published (2x3)" in done.out
    assert "61.5" in done.out
    assert "88.2" in done.out
    assert "may differ" in done.out

    by_hand = json.loads(run("evaluate", labelled, "--model", published, "--views", "2x3", "--json").out)
    summary = json.loads(run(*command, "--json").out)
    assert summary["published_percent"] == {"top1": 61.5, "top5": 88.25, "views": "2x3"}
    assert by_hand["published_percent"] is None
    assert summary["accuracy_percent"] == by_hand["accuracy_percent"]
    assert summary["calibration"] == by_hand["calibration"]

    for option in (("--views", "1x1"), ("--fast",)):
        refused = run(*command, *option)
        assert refused.status == 2
        assert f"omit {option[0]}" in refused.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--protocol", "published"), "has no published accuracy"),
        (("--views", "big"), "CLIPSxCROPS"),
        (("--resume",), "--output"),
        (("--split", "val"), "needs a CSV"),
        (("--model", "nope"), "weights list"),
    ],
)
def test_wrong_usage_is_status_2(run: Run, options, message, tiny_model: Path, labelled: Path) -> None:
    model = () if "--model" in options else ("--model", tiny_model)
    done = run("evaluate", labelled, *model, *options)
    assert (done.status, done.out) == (2, "")
    assert message in done.err


def test_the_guides_commands_and_its_csv_are_understood(tmp_path: Path) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "evaluate.md").read_text("utf-8")
    commands = [shlex.split(line)[2:] for line in re.findall(r"^nonlocal-video evaluate .*$", guide, re.MULTILINE)]
    assert len(commands) == 4
    verb = typer.main.get_group(app).commands["evaluate"]
    for arguments in commands:
        assert verb.make_context("evaluate", list(arguments)).params["source"] == arguments[0]
    table = tmp_path / "clips.csv"
    table.write_text(re.search(r"```csv\n(.*?)```", guide, re.DOTALL)[1])
    assert [clip.group for clip in read_labelled(table, split="val")] == ["anna", "anna"]


def test_stray_files_and_split_folders(run: Run, tiny_model: Path, labelled: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(labelled, clips / "val", ignore=shutil.ignore_patterns("note.mp4"))
    (clips / "train").mkdir()
    a_class = next((clips / "val").iterdir())
    shutil.copytree(a_class, clips / "train" / a_class.name)
    for name in ("README.md", "val/.DS_Store", f"val/{a_class.name}/poster.jpg"):
        (clips / name).write_text("x")
    output = tmp_path / "out"
    command = ("evaluate", clips, "--model", tiny_model, "--device", "cpu")
    done = run(*command, "--split", "val", "--output", output)
    assert done.status == 0
    assert "train (1 clips, for training), validation (3 clips, for validation)" in done.err
    assert "Passed over in folders: 1 hidden, 1 pictures, 1 text. --all-files tries them." in done.err
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["clips"], summary["passed_over"]) == (3, {"hidden": 1, "pictures": 1, "text": 1})
    assert len(list(rows_of(output / "predictions.csv"))) == 3
    together = run(*command, "--json")
    assert json.loads(together.out)["clips"] == 4
    assert "All splits are measured together: train, validation." in together.err


def test_unknown_labels_are_status_2_and_name_the_closest(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "clips" / "acton_5").mkdir(parents=True)
    (tmp_path / "clips" / "acton_5" / "a.mp4").touch()
    done = run("evaluate", tmp_path / "clips", "--model", tiny_model, "--output", tmp_path / "out")
    assert done.status == 2
    assert "'acton_5' (1 clips), closest 'action 5'" in done.err
    assert not (tmp_path / "out").exists()
