"""`nonlocal-video weights` as a user meets it; nothing here reaches a publisher's server."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nonlocal_video.cli.main import main
from nonlocal_video.models.checkpoint import save_checkpoint
from nonlocal_video.zoo.catalogue import build, entries, entry
from nonlocal_video.zoo.export_state import export_state

NAME = "c2d-r50-8x8-k400-pyslowfast"
"""The smallest network whose publisher gives no hash, so that a file made here may stand for theirs."""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights folder of all tests here."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the publisher's, with random numbers."""
    here = tmp_path_factory.mktemp("published")
    save_checkpoint(here / "ours.safetensors", build(NAME), entry(NAME).card, dtype=torch.float32)
    return export_state(here / "ours.safetensors", here / "theirs.pyth", layout="pyslowfast")


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls `nonlocal-video weights ...`: exit status, standard output, standard error."""
    monkeypatch.setenv("NONLOCAL_VIDEO_WEIGHTS", str(folder))
    monkeypatch.setenv("NONLOCAL_VIDEO_OFFLINE", "1")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nonlocal-video", "weights", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return call


def test_the_verbs_load_nothing_heavy() -> None:
    code = "import nonlocal_video.cli.main, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pydantic", "requests", "yaml", "filelock", "safetensors"} & set(loaded)


def test_list_has_every_name_and_says_what_it_costs_to_use(run: Run) -> None:
    status, out, _ = run("list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert set(rows) == {"i3d-nl-k400", *entries()}
    assert rows["i3d-nl-k400"]["state"] == "in the package"
    row = rows["i3d-nl-r50-32x2-k400-caffe2"]
    assert (row["state"], row["non_commercial"], row["parameters"]) == ("no", True, 35401936)
    assert row["accuracy"] == {"top1": 74.9, "top5": 91.6, "views": "10x3"}
    assert (row["download_mb"], row["download_mb_is_stated"]) == (pytest.approx(4 * 35.401936), False)
    stated = rows["mc3-18-k400-torchvision"]
    assert (stated["download_mb"], stated["download_mb_is_stated"]) == (46.8, True)
    assert all((row["download_mb"] is None) == (row["url"] is None) for row in rows.values())
    assert rows["r3d-34-k700-kenshohara"]["state"] == "by hand"
    assert rows["i3d-nl-r101-8x8-k400-pyslowfast"]["state"] == "unpublished"
    _, table, _ = run("list")
    for name in rows:
        assert f" {name} " in table
    assert "CC-BY-NC-4.0" in table
    assert "NC forbids commercial use" in table
    assert max(map(len, table.splitlines()[:-3])) <= 120, "the width of a terminal"
    assert " ~142 MB " in table
    assert " 47 MB " in table


@pytest.mark.slow
def test_a_file_put_there_by_hand_becomes_weights_that_verify(run: Run, folder: Path, published: Path) -> None:
    status, out, err = run("pull", NAME)
    place = folder / "downloads" / f"{NAME}.pkl"
    download = entry(NAME).download
    assert download is not None
    assert (status, out) == (1, "")
    assert f"Fetch {download.url} elsewhere, save it as {place}" in err
    assert err.count("\n") == 1

    place.parent.mkdir(exist_ok=True)
    place.write_bytes(published.read_bytes())
    sha256 = hashlib.sha256(published.read_bytes()).hexdigest()
    status, out, err = run("pull", NAME, "default")
    assert (status, out) == (0, f"{folder / NAME}.safetensors\n")
    assert f"has SHA-256 {sha256} (its publisher gives none to compare)" in err
    assert "default comes with the package" in err
    assert place.is_file()

    _, out, _ = run("list", "--json")
    assert next(row for row in json.loads(out) if row["name"] == NAME)["state"] == "here"
    status, out, _ = run("verify")
    assert status == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == ["i3d-nl-k400", NAME]
    _, out, _ = run("info", NAME, "--json")
    known = json.loads(out)
    assert known["record"]["sha256"] == sha256
    assert known["record"]["url"] == known["card"]["source"] == known["catalogue"]["download"]["url"]
    assert known["file"] == f"{folder / NAME}.safetensors"

    place.unlink()
    converted = folder / f"{NAME}.safetensors"
    converted.write_bytes(converted.read_bytes()[:-1] + b"x")
    status, out, err = run("verify", NAME, "mc3-18-k400-torchvision")
    assert (status, out) == (1, "")
    assert f"Delete {converted} and pull again." in err
    assert "mc3-18-k400-torchvision is not here" in err


@pytest.mark.slow
def test_convert_and_export_state_are_each_other_s_opposite(run: Run, published: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.pyth"
    status, out, _ = run("convert", published, "--as", NAME, "--output", ours)
    assert status == 0
    assert f"{ours}: {NAME}, from {published} (SHA-256 " in out
    for key, tensor in load_file(published.parent / "ours.safetensors").items():
        assert torch.equal(tensor, load_file(ours)[key]), key
    assert run("export-state", ours, "--layout", "pyslowfast", "--output", theirs)[:2] == (0, f"{theirs}\n")
    back, first = (torch.load(path, weights_only=True)["model_state"] for path in (theirs, published))
    assert list(back) == list(first)
    assert all(torch.equal(back[key], first[key]) for key in first)


def test_info_reads_a_training_run(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model, tmp_path / "best.safetensors")
    (tmp_path / "config.json").write_text("{}")
    status, out, _ = run("info", tmp_path, "--json")
    assert status == 0
    assert json.loads(out)["file"] == str(tmp_path / "best.safetensors")
    (tmp_path / "config.json").unlink()
    status, _, err = run("info", tmp_path)
    assert status == 2
    assert "holds no training run" in err


def test_info_reads_a_file_and_shows_a_row_that_is_not_here(run: Run, tiny_model: Path) -> None:
    status, out, _ = run("info", tiny_model)
    assert status == 0
    assert "7: action 0, ..., action 6" in out
    status, out, _ = run("info", "i3d-nl-r50-32x2-k400-caffe2")
    assert status == 0
    for words in ("not installed", "~142 MB", "forbidden by the licence", "35,401,936", "layer2.1, layer2.3, layer3.1"):
        assert words in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", "i3d-nl-r50-8x8-k400-pyslowfst"), "Did you mean i3d-nl-r50-8x8-k400-pyslowfast"),
        (("pull", "i3d-nl-r50-32x2-k400-caffe2"), "(licence: CC-BY-NC-4.0)"),
        (("verify", "nope"), "no model or weights file 'nope'"),
        (("info", "nope"), "no model or weights file 'nope'"),
        (("convert", "gone.pth", "--output", "x.pth"), "output = x.pth should end in .safetensors"),
        (("convert", "gone.pth", "--output", "x.safetensors"), "Weights file gone.pth not found"),
        (("convert", "gone.pth", "--output", "x.safetensors", "--labels", "gone.txt"), "gone.txt cannot be read"),
        (("export-state", "default", "--layout", "pyslowfast", "--output", "x.pyth"), "inception_i3d"),
        (("export-state", "default", "--layout", "caffe2", "--output", "x.pyth"), "--layout"),
    ],
)
def test_wrong_usage_is_status_2_with_one_message(run: Run, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_what_cannot_be_pulled_says_why(run: Run) -> None:
    status, _, err = run("pull", "i3d-nl-r101-8x8-k400-pyslowfast", "r3d-34-k700-kenshohara")
    first, second = err.splitlines()
    assert status == 1
    assert first.startswith("i3d-nl-r101-8x8-k400-pyslowfast: No weights were ever published")
    assert second.startswith("r3d-34-k700-kenshohara: The weights of")
    assert "can only be downloaded by hand" in second
