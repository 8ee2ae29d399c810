"""Teaching end to end: what the folder holds, that all else takes it, that a second lesson sees new clips only."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_clips import COLOURS, write_colour

import nonlocal_video as nlv
from nonlocal_video.errors import UsageError
from nonlocal_video.features.table import read_features
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.teaching.api import TaughtRun, teach

FILES = ["README.md", "best.safetensors", "config.json", "examples.csv", "features.parquet", "report.json"]


def test_the_run_is_a_model_that_knows_its_classes(run: TaughtRun, tmp_path: Path) -> None:
    assert (
        sorted(path.name for path in run.path.iterdir() if path.name not in (".lock",) and "journal" not in path.name)
        == FILES
    )
    report = json.loads((run.path / "report.json").read_text())
    assert (report["accuracy"], report["num_examples"], report["num_classes"]) == (1.0, 12, 3)
    assert 0.7 < report["interval"][0] < report["interval"][1] == 1.0
    assert report["worst"] == []
    assert report["head"] in report["heads"]
    for number, (label, colour) in enumerate(COLOURS.items()):
        write_colour(tmp_path / "asked" / f"{label}.mp4", colour, 100 + number)
    write_colour(tmp_path / "asked" / "white.mp4", (230, 230, 230), 7)
    with nlv.load(run, device="cpu") as recognizer:
        assert recognizer.labels == ("blue", "green", "red")
        found = {Path(row["path"]).stem: row for row in recognizer.classify_folder(tmp_path / "asked")}
    assert {name: found[name]["top"][0]["label"] for name in COLOURS} == {name: name for name in COLOURS}
    assert {name: row["unknown"] for name, row in found.items()} == {**dict.fromkeys(COLOURS, False), "white": True}
    assert [note for note in found["white"]["notes"] if note.startswith("Unknown: ")]


def test_unknown_is_in_every_kind_of_table(run: TaughtRun, examples: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "clips").mkdir()
    shutil.copy(examples / "red" / "0.mp4", tmp_path / "clips")
    (tmp_path / "clips" / "bad.mp4").write_bytes(b"no video")
    with nlv.load(run, device="cpu") as recognizer:
        for ending in ("csv", "parquet", "jsonl"):
            recognizer.classify_folder(tmp_path / "clips", output=tmp_path / f"t.{ending}")
    (good,) = (row for row in pq.read_table(tmp_path / "t.parquet").to_pylist() if row["status"] == "ok")
    assert good["unknown"] is False
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        rows = {row["status"]: row["unknown"] for row in csv.DictReader(file)}
    assert rows == {"ok": "False", "error": ""}
    from nonlocal_video.inference.result_table import read_table

    for ending in ("csv", "parquet", "jsonl"):
        assert {row["status"]: row["unknown"] for row in read_table(tmp_path / f"t.{ending}")} == {
            "ok": False,
            "error": None,
        }


def test_the_views_are_those_of_classify(run: TaughtRun, examples: Path, tiny_model: Path) -> None:
    table = read_features(run.path / "features.parquet")
    with nlv.load(tiny_model, device="cpu") as recognizer:
        for path, feature in zip(table.paths, table.features, strict=True):
            alone = recognizer.classify(path.partition("#t=")[0]).features
            np.testing.assert_allclose(feature, alone, rtol=1e-4, atol=1e-5)


def test_only_the_last_layer_differs_from_the_start(run: TaughtRun, tiny_model: Path) -> None:
    start, _ = load_checkpoint(tiny_model)
    taught, card = load_checkpoint(run.path / "best.safetensors")
    before, after = start.state_dict(), taught.state_dict()
    changed = [
        name for name in after if after[name].shape != before[name].shape or not torch.equal(after[name], before[name])
    ]
    assert changed == ["fc.weight", "fc.bias"]
    assert card.taught is not None
    assert len(card.taught.means) == 3
    # A head of unit-length features at their usual length answers as it does at length 1.
    table = read_features(run.path / "features.parquet")
    labels = [card.labels[index] for index in taught.fc(torch.from_numpy(table.features)).argmax(1).tolist()]
    assert labels == [Path(path).parent.name for path in table.paths]


@pytest.mark.slow
def test_a_second_lesson_sees_new_clips_only(
    run: TaughtRun, examples: Path, tiny_model: Path, tmp_path: Path, monkeypatch
) -> None:
    more, output = tmp_path / "examples", tmp_path / "colours"
    shutil.copytree(examples, more, copy_function=shutil.copy2)
    again = teach(more, output=output, model=tiny_model, device="cpu")
    for clip in range(2):
        write_colour(more / "yellow" / f"{clip}.mp4", (210, 210, 30), 50 + clip)
    (more / "red" / "3.mp4").unlink()
    seen: list[str] = []
    from nonlocal_video.inference import feature_stream

    original = feature_stream.stream_features

    def stream(recognizer, files, *rest, **more):
        return original(recognizer, (seen.append(file) or file for file in files), *rest, **more)

    monkeypatch.setattr("nonlocal_video.features.extract.stream_features", stream)
    later = teach(more, output=output, model=tiny_model, device="cpu", resume=True)
    assert sorted(Path(path.partition("#t=")[0]).parent.name for path in seen) == ["yellow", "yellow"]
    assert again.report.counts == {"blue": 4, "green": 4, "red": 4}
    assert later.report.counts == {"blue": 4, "green": 4, "red": 3, "yellow": 2}
    anew = teach(more, output=tmp_path / "anew", model=tiny_model, device="cpu")
    assert anew.report.to_json() == later.report.to_json()
    for name in ("best.safetensors",):
        first, second = (load_checkpoint(folder / name)[0].state_dict() for folder in (output, tmp_path / "anew"))
        assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(UsageError, match=r"views was '1x1' and is '3x1'"):
        teach(more, output=output, model=tiny_model, device="cpu", views="3x1", resume=True)
    with pytest.raises(UsageError, match="holds a run already"):
        teach(more, output=output, model=tiny_model, device="cpu")


def test_one_example_a_class(examples: Path, tiny_model: Path, tmp_path: Path) -> None:
    for label in COLOURS:
        (tmp_path / "one" / label).mkdir(parents=True)
        shutil.copy(examples / label / "0.mp4", tmp_path / "one" / label)
    run = teach(tmp_path / "one", output=tmp_path / "run", model=tiny_model, device="cpu")
    assert (run.accuracy, run.report.interval, run.report.num_measured) == (None, None, 0)
    with nlv.load(run, device="cpu") as recognizer:
        assert [recognizer.classify(examples / label / "1.mp4").top1.label for label in COLOURS] == list(COLOURS)


@pytest.mark.slow
def test_bad_files_and_contradictions_are_named_and_left_out(examples: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(examples, tmp_path / "examples"))
    (folder / "red" / "bad.mp4").write_bytes(b"no video")
    shutil.copy(folder / "red" / "0.mp4", folder / "blue" / "also_red.mp4")
    run = teach(folder, output=tmp_path / "run", model=tiny_model, device="cpu")
    problems = {Path(path).name: problem for path, problem in run.report.unreadable}
    assert sorted(problems) == ["0.mp4", "also_red.mp4", "bad.mp4"]
    assert "not_a_video" in problems["bad.mp4"]
    assert "other labels" in problems["also_red.mp4"]
    assert run.report.counts == {"blue": 4, "green": 4, "red": 3}
    listed = json.loads((run.path / "report.json").read_text())["unreadable"]
    assert sorted(Path(row["path"]).name for row in listed) == sorted(problems)
    shutil.rmtree(folder / "green")
    (folder / "green").mkdir()
    (folder / "green" / "0.mp4").write_bytes(b"no video either")
    with pytest.raises(UsageError, match=r"No example of 'green' can be used"):
        teach(folder, output=tmp_path / "other", model=tiny_model, device="cpu")


def test_none_of_these_is_no_class(examples: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(examples, tmp_path / "examples"))
    for clip in range(2):
        write_colour(folder / "None of these" / f"{clip}.mp4", (120, 40, 120), 70 + clip)
    run = teach(folder, output=tmp_path / "run", model=tiny_model, device="cpu")
    assert run.report.num_none == 2
    assert list(run.report.counts) == ["blue", "green", "red"]
    write_colour(tmp_path / "purple.mp4", (120, 40, 120), 99)
    with nlv.load(run, device="cpu") as recognizer:
        prediction = recognizer.classify(tmp_path / "purple.mp4")
    assert prediction.unknown
    assert prediction.top1.label in COLOURS


@pytest.mark.slow
def test_segments_and_several_labels(examples: Path, tiny_model: Path, tmp_path: Path) -> None:
    rows = ["path,start_seconds,end_seconds,label,group"]
    for label in ("red", "blue"):
        for clip in range(3):
            rows += [
                f"{examples}/{label}/{clip}.mp4,0,1,{label},{clip}",
                f"{examples}/{label}/{clip}.mp4,1,2,{label},{clip}",
            ]
    rows += [f"{examples}/green/{clip}.mp4,0,2,{label},{clip}" for clip in range(2) for label in ("green", "leaf")]
    (tmp_path / "segments.csv").write_text("\n".join(rows))
    run = teach(tmp_path / "segments.csv", output=tmp_path / "run", model=tiny_model, device="cpu")
    assert run.report.counts == {"blue": 6, "green": 2, "leaf": 2, "red": 6}
    assert run.report.num_examples == 14
    assert run.accuracy == 1.0
    spans = sorted({path.partition("#t=")[2] for path in read_features(run.path / "features.parquet").paths})
    assert spans == ["0.1,0.9", "0.6,1.4", "1.1,1.9"]
    assert (
        teach(run.path / "examples.csv", output=tmp_path / "again", model=tiny_model, device="cpu").report.num_examples
        == 14
    )


def test_training_begins_from_a_taught_run(run: TaughtRun) -> None:
    from nonlocal_video.training.initialization import initialize

    start = initialize(run.path, ("blue", "green", "red"), name="trained")
    assert start.card.taught is None
    assert "including the head" in start.loaded


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"views": "1x3"}, "views of one crop"),
        ({"resume": True}, "holds no run of teach"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(examples, tiny_model, tmp_path, how, message) -> None:
    with pytest.raises(UsageError, match=message):
        teach(examples, output=tmp_path / "run", model=tiny_model, device="cpu", **how)
    assert not (tmp_path / "run").exists()
