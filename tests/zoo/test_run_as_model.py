"""The folder of a training run is a model wherever one is named."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import nonlocal_video as nlv
from nonlocal_video.cli.main import main
from nonlocal_video.datasets.manifest import Manifest
from nonlocal_video.errors import ModelError
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.zoo.catalogue import entries, find

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trained(tiny_model: Path, tmp_path: Path) -> RunFolder:
    """A run whose best network is another than its last, and has its own name."""
    network, card = load_checkpoint(tiny_model)
    with RunFolder(tmp_path / "my run").create({"stage": "all"}, Manifest(()), command=("train",)) as folder:
        folder.save_best(network, replace(card, name="my run"))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        folder.save_last(network, card)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: exit status, output, errors."""

    def program(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nonlocal-video", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return program


def test_a_runs_folder_is_its_best_weights(
    trained: RunFolder, tiny_model: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find(trained.path) == trained.best
    clip = clip_folder / "a.mp4"
    with nlv.load(trained.path, device="cpu") as of_run, nlv.load(tiny_model, device="cpu") as of_file:
        assert of_run.card.name == "my run"
        found, expected = of_run.classify(clip).scores, of_file.classify(clip).scores
    np.testing.assert_array_equal(found, expected)
    assert isinstance(nlv.build(trained.path), nlv.Video3DResNet)
    monkeypatch.chdir(trained.path.parent)
    assert find("my run").resolve() == trained.best
    assert find("my run/").resolve() == trained.best
    monkeypatch.chdir(trained.path)
    assert find(".").resolve() == trained.best


@pytest.mark.slow
def test_every_verb_takes_it(trained: RunFolder, clip_folder: Path, run: Run, tmp_path: Path) -> None:
    clip, model = clip_folder / "a.mp4", ("--model", trained.path, "--device", "cpu")
    status, out, _ = run("classify", clip, *model, "--json")
    row = json.loads(out)
    assert (status, row["model"]) == (0, "my run")

    status, out, _ = run("explain", clip, *model, "--output", tmp_path / "explained")
    assert status == 0
    assert (tmp_path / "explained" / "overlay.mp4").is_file()

    assert run("timeline", clip, *model, "--output", tmp_path / "line.csv")[0] == 0
    with open(tmp_path / "line.csv", newline="") as file:
        assert {window["top1_label"] for window in csv.DictReader(file)} <= {f"action {index}" for index in range(7)}

    folder = tmp_path / "labelled" / row["top"][0]["label"]
    folder.mkdir(parents=True)
    shutil.copy(clip, folder)
    status, out, _ = run("evaluate", folder.parent, *model, "--json")
    summary = json.loads(out)
    assert (status, summary["model"], summary["accuracy_percent"]["top1"]["value"]) == (0, "my run", 100.0)


def test_a_run_without_best_weights_says_what_to_do(trained: RunFolder, run: Run) -> None:
    trained.best.unlink()
    with pytest.raises(ModelError, match=r"has no best\.safetensors yet: .* train \.\.\. --resume"):
        find(trained.path)
    status, out, err = run("classify", "clip.mp4", "--model", trained.path)
    assert (status, out) == (2, "")
    assert "best.safetensors yet" in err


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no training run \(it has no config\.json\)"):
        find(tmp_path)


def test_a_name_of_the_catalogue_comes_before_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NONLOCAL_VIDEO_WEIGHTS", str(tmp_path / "none"))
    published = next(name for name, entry in entries().items() if entry.download)
    for name in ("default", published):
        (tmp_path / name).mkdir()
    assert find("default").name == "i3d-nl-k400.safetensors"
    with pytest.raises(ModelError, match=f"weights pull {published}"):
        find(published)
