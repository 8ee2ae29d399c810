"""`nonlocal-video analyze`: what it prints, writes and answers."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nonlocal_video.analysis.rates import Measurement, Rates
from nonlocal_video.cli.analyze import app
from nonlocal_video.errors import ModelError, UsageError


def run(*arguments: str | Path, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "network.json"
    blocks = {"layer2.0": {"sub_sample": False}}
    shape = {"num_classes": 3, "width": 4, "blocks_per_stage": [1, 1, 1, 1], "nonlocal_blocks": blocks}
    path.write_text(json.dumps({"architecture": "resnet3d", "config": shape}))
    return path


def test_complexity(tiny_model: Path, config: Path) -> None:
    counted = json.loads(run("complexity", "--model", tiny_model, "--json"))
    assert counted["input_shape"] == [1, 3, 8, 48, 48]  # the model's own
    assert [block["name"] for block in counted["blocks"]] == ["layer3.nonlocal0"]
    table = run("complexity", "--config", config, "--input", "8,64,64")
    assert "layer2.nonlocal0" in table
    assert "2 GFLOP" in table


def test_receptive_field(config: Path, tmp_path: Path) -> None:
    picture = tmp_path / "fields.png"
    arguments = ("receptive-field", "--config", config, "--input", "8,48,48", "--num-inputs", "1")
    found = json.loads(run(*arguments, "--output", picture, "--json"))
    assert found["effective"]["with_blocks"]["layer"] == "layer2.nonlocal0"
    assert found["theoretical"][0]["extent"] == [3, 7, 7]
    assert picture.stat().st_size > 10_000
    table = run(*arguments, "--layer", "layer1")
    assert "3 x 7 x 7" in table
    assert "layer2.nonlocal0" in table.splitlines()[-1]  # said to add nothing


@pytest.mark.slow
def test_attention(tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    table, picture = tmp_path / "patterns.csv", tmp_path / "patterns.png"
    clips = [clip_folder / "a.mp4", clip_folder / "b" / "note.mp4", clip_folder / "b" / "c.mp4"]
    options = ("--model", tiny_model, "--device", "cpu", "--output", table, "--output", picture, "--json")
    found = json.loads(run("attention", *clips, *options, status=1))  # one of them is no video
    assert [clip["clip"] for clip in found["clips"]] == [str(clips[0]), str(clips[2])]
    assert found["blocks"][0]["num_clips"] == 2
    with table.open(newline="") as file:
        assert [row["clip"] for row in csv.DictReader(file)] == [str(clips[0]), str(clips[2])]
    assert picture.stat().st_size > 10_000
    assert "layer3.nonlocal0" in run("attention", clips[0], "--model", tiny_model, "--fast")
    not_utf8 = tmp_path / os.fsdecode(b"latin\xe9.mp4")
    shutil.copy(clips[0], not_utf8)
    table.unlink()
    run("attention", not_utf8, "--model", tiny_model, "--output", table)
    assert r"latin\xe9.mp4" in table.read_text("utf-8")


def test_recommend(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Measurement((1, 1, n), n * 10**6, n * 1e-3, n * 10**6, n * 10**6) for n in (1, 1000)]
    made_up = Rates(*points, device="cpu", num_threads=1)  # test_speed.py measures
    monkeypatch.setattr("nonlocal_video.analysis.rates.measure_rates", lambda *_, **__: made_up)
    arguments = ("recommend", "--config", config, "--input", "8,64,64", "--device", "cpu")
    settings = json.loads(run(*arguments, "--clips-per-second", "0.01", "--memory-gb", "4", "--json"))
    assert [setting["change"] for setting in settings] == ["nothing"]
    assert "NO, nothing does" in run(*arguments, "--clips-per-second", "1000000")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recommend",), "Give a limit"),
        (("complexity", "--input", "1,2"), "should be T,H,W"),
        (("complexity", "--input", "0,2,2"), "at least 1"),
        (("complexity", "--input", "1000000,1000000,1000000"), "at most 4,294,967,296 pixels"),
        (("complexity", "--config", "{config}", "--model", "other"), "are two networks; give only one"),
        (("attention", "a.mp4", "--output", "a.txt"), "should end in .csv or .png"),
        (("attention", "a.mp4", "--output", "nowhere/a.csv"), "in a folder that does not exist; create it first"),
        (("receptive-field", "--output", "field.txt"), "should end in .png"),
        (("complexity", "--config", "{config}"), "give it with --input"),
        (("complexity", "--config", "nothing.json", "--input", "8,8,8"), "cannot be read as JSON"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, config: Path, tiny_model: Path) -> None:
    given = [argument.format(config=config) for argument in arguments]
    if "--config" not in given:
        given += ["--model", str(tiny_model)]
    with pytest.raises(UsageError) as raised:
        run(*given)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("[]", UsageError, "should be"),
        ('{"architecture": "resnet3d", "config": {"num_classes": 0}}', UsageError, "at least 1"),
        ('{"architecture": "lstm", "config": {}}', ModelError, "architecture"),
        ('{"architecture": "resnet3d", "config": {"breadth": 3}}', ModelError, "breadth"),
    ],
)
def test_wrong_configuration(content: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(error, match=message):
        run("complexity", "--config", path, "--input", "8,8,8")


def test_help_loads_no_torch() -> None:
    code = "import sys, nonlocal_video.cli.analyze; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
