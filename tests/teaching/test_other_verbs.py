"""A taught run in the verbs that take runs: training, export, the timeline, the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from colour_clips import COLOURS, write_colour
from huggingface_hub.repocard import ModelCard as HubCard
from typer.testing import CliRunner

import nonlocal_video as nlv
from nonlocal_video.cli.main import app
from nonlocal_video.teaching.api import TaughtRun
from nonlocal_video.teaching.examples import NONE_OF_THESE
from nonlocal_video.zoo.hub_upload import _files


def test_training_does_not_resume_a_taught_run(run: TaughtRun) -> None:
    with pytest.raises(nlv.UsageError, match="was taught"):
        nlv.train(output=run.path, resume=True)


def test_the_timeline_of_a_taught_run_has_its_classes(run: TaughtRun, examples: Path) -> None:
    with nlv.load(run, device="cpu") as recognizer:
        timeline = recognizer.timeline(examples / "red" / "0.mp4")
    assert timeline.labels == ("blue", "green", "red")
    assert timeline.top(0)[0].label == "red"


@pytest.mark.slow
def test_an_exported_taught_run_answers_alike(run: TaughtRun, tmp_path: Path) -> None:
    arguments = ["export", str(run.path), "--format", "torch-export", "--output", str(tmp_path / "taught")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    extra = {"nonlocal_video.card": ""}
    program = torch.export.load(tmp_path / "taught.pt2", extra_files=extra).module()
    assert json.loads(extra["nonlocal_video.card"])["labels"] == ["blue", "green", "red"]
    with nlv.load(run, device="cpu") as recognizer, torch.inference_mode():
        spec = recognizer.card.input
        clips = torch.rand(2, 3, spec.num_frames, spec.crop, spec.crop)
        torch.testing.assert_close(program(clips), recognizer.network(clips), rtol=1e-4, atol=1e-4)


def test_an_uploaded_taught_run_names_no_example(run: TaughtRun, examples: Path) -> None:
    sent = {file.path_in_repo: file for file in _files(run.path, "me/colours", lambda sentence: None)}
    assert set(sent) == {"best.safetensors", "config.json", "README.md"}
    for name in ("config.json", "README.md"):
        content = sent[name].path_or_fileobj
        assert isinstance(content, bytes)
        assert str(examples).encode() not in content
        assert str(run.path).encode() not in content
    assert b"hf://me/colours" in sent["README.md"].path_or_fileobj
    front_matter: Any = HubCard(sent["README.md"].path_or_fileobj.decode()).data
    assert front_matter.tags[-1] == "few-shot"
    assert set(json.loads(sent["config.json"].path_or_fileobj)["card"]["labels"]) == set(COLOURS)


@pytest.mark.slow
def test_the_command_prints_what_it_writes(examples: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    for name in COLOURS:
        (tmp_path / "examples" / name).symlink_to(examples / name)
    write_colour(tmp_path / "examples" / NONE_OF_THESE / "0.mp4", (120, 40, 120), 5)
    (tmp_path / "examples" / NONE_OF_THESE / "bad.mp4").write_bytes(b"no video")
    arguments = ["teach", str(tmp_path / "examples"), "--output", str(tmp_path / "run"), "--model", str(tiny_model)]
    done = CliRunner().invoke(app, [*arguments, "--json", "--device", "cpu"])
    assert done.exit_code == 1, done.output  # one file is bad
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "run" / "report.json").read_text())
    assert (printed["accuracy"], printed["num_none_of_these"], len(printed["unreadable"])) == (1.0, 1, 1)
    again = CliRunner().invoke(app, [*arguments, "--resume", "--device", "cpu"])
    assert "12 examples of 3 classes and 1 of none of these" in again.stdout
    assert "100.0% (95% interval" in again.stdout
    assert "Try it: nonlocal-video classify CLIP --model" in again.stdout
    rows = CliRunner().invoke(
        app, ["classify", str(examples / "red"), "--model", str(tmp_path / "run"), "--json", "--device", "cpu"]
    )
    assert [json.loads(line)["unknown"] for line in rows.stdout.splitlines()] == [False] * 4
