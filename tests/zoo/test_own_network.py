"""Models named as `package.module:function`: in Python, in commands, on several devices, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import nonlocal_video as nlv
from nonlocal_video.cli.main import app
from nonlocal_video.zoo.own_network import digest_of_state, is_function

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "own_network.md").read_text("utf-8")
MODULE = """
import torch

import nonlocal_video as nlv

INPUT = nlv.InputSpec(num_frames=4, frames_per_second=10, short_side=24, crop=16, mean=(0, 0, 0), std=(1, 1, 1))


class MeanColour(torch.nn.Module):
    feature_layer = "features"

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv3d(3, 3, 1, bias=False)
        self.features.weight.data = SCALE * torch.eye(3).reshape(3, 3, 1, 1, 1)

    def forward(self, x):
        return self.features(x).mean(dim=(2, 3, 4))


class Nets:
    @staticmethod
    def colour():
        card = nlv.ModelCard("colour", architecture="", config={}, input=INPUT, labels=("red", "green", "blue"))
        return MeanColour(), card


def colour():
    return Nets.colour()


def nothing():
    pass


def half():
    return MeanColour(), "a card"


def broken():
    raise ZeroDivisionError("by hand")


number = 5
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with `own/nets.py`; nothing of it stays imported."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "nets.py").write_text(MODULE.replace("SCALE", "10"))
    (tmp_path / "own" / "late.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "mynet.py").write_text(re.findall(r"```python\n(# mynet.py\n.*?)```", PAGE, flags=re.DOTALL)[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("own", "mynet")]:
        del sys.modules[name]


def run(*arguments: object) -> tuple[int, str, str]:
    """The exit status, what is printed on stdout, and the error that `main` turns into a message and status 2."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    refused = isinstance(done.exception, nlv.NonlocalVideoError)
    return 2 if refused else done.exit_code, done.stdout, str(done.exception) if refused else done.stderr


def test_a_red_clip_is_red(package: Path, clip_folder: Path) -> None:
    red = np.zeros((8, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    for name in ("own.nets:colour", "own.nets:Nets.colour"):
        with nlv.load(name, device="cpu") as recognizer:
            assert recognizer.source == name
            prediction = recognizer.classify(red, frames_per_second=10)
            assert prediction.top1.label == "red"
            np.testing.assert_allclose(prediction.scores, torch.tensor([10.0, 0, 0]).softmax(0), atol=1e-5)
            recognizer.timeline(clip_folder / "a.mp4")


def test_commands_take_it_and_resume_knows_its_weights(package: Path, clip_folder: Path) -> None:
    status, out, err = run("classify", clip_folder / "a.mp4", "--model", "own.nets:colour", "--device", "cpu", "--json")
    assert status == 0, err
    row = json.loads(out)
    assert row["model"] == "colour"
    with nlv.load("own.nets:colour", device="cpu") as recognizer:
        assert row["top"][0]["label"] == recognizer(clip_folder / "a.mp4").top1.label
    table = ("classify", clip_folder, "--model", "own.nets:colour", "--output", "t.jsonl", "--device", "cpu")
    assert run(*table)[0] == 1  # one of the files is a text
    assert run(*table, "--resume")[0] == 1
    module = package / "own" / "nets.py"
    module.write_text(MODULE.replace("SCALE", "11"))
    del sys.modules["own.nets"]
    status, _, err = run(*table, "--resume")
    assert status == 2, err
    assert "weights_sha256" in err


@pytest.mark.slow
def test_evaluate_and_decode_read_its_card(package: Path, clip_folder: Path) -> None:
    (package / "list.csv").write_text(f"path,label\n{clip_folder / 'a.mp4'},red\n")
    report = nlv.evaluate(package / "list.csv", model="own.nets:colour", device="cpu")
    assert len(report.answers) == 1
    status, out, err = run("check", package / "list.csv", "--model", "own.nets:colour")
    assert status == 0, out + err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own.nets:gone", r"own\.nets has no 'gone'"),
        ("own.nowhere:model", r"there is no module 'own\.nowhere' where Python looks .* nor in "),
        ("no_such_package.nets:model", r"there is no module 'no_such_package'"),
        ("own.late:model", r"importing own\.late failed: ModuleNotFoundError: .*not_installed_anywhere"),
        ("own.nets:number", r"it is a int, and should be a function without arguments"),
        ("own.nets:nothing", r"the function returned NoneType, and should return \(nn\.Module, nlv\.ModelCard\)"),
        ("own.nets:half", r"the function returned \(MeanColour, str\), and should return"),
        ("own.nets:broken", r"the function failed: ZeroDivisionError: by hand"),
    ],
)
def test_what_is_wrong_is_said(package: Path, clip_folder: Path, name: str, message: str) -> None:
    with pytest.raises(nlv.ModelError, match=re.escape(f"Model {name!r}: ") + message):
        nlv.load(name)
    status, _, err = run("classify", clip_folder / "a.mp4", "--model", name)
    assert status == 2
    assert re.search(message, err)


def test_what_needs_a_file_says_so(package: Path, clip_folder: Path) -> None:
    status, _, err = run("weights", "info", "own.nets:colour")
    assert status == 2
    assert "is a function, which has no weights file" in err


def test_names_of_files_come_first(package: Path) -> None:
    assert all(map(is_function, ("a.b:c", "mynet:model")))
    assert not any(
        map(is_function, ("default", "runs/a:b", "s3://a/b", "hf://a/b", "https://a.b", "C:\\a", "a:", ":b"))
    )
    (package / "a:b").touch()
    assert not is_function("a:b")


def test_the_digest_is_of_the_values() -> None:
    one, two = torch.nn.BatchNorm3d(3), torch.nn.BatchNorm3d(3)
    assert digest_of_state(one) == digest_of_state(two)
    two.weight.data += 1e-6
    assert digest_of_state(one) != digest_of_state(two)


@pytest.mark.slow
def test_the_guide_runs(package: Path, clip_folder: Path) -> None:
    clip = clip_folder / "a.mp4"
    with nlv.load("mynet:model", device="cpu") as recognizer:
        assert recognizer.labels == ("jump", "run", "throw")
        vars(recognizer.network)["feature_layer"] = "layer4"
        assert recognizer.explain(clip, method="evidence").method == "evidence"
        scores = recognizer(clip).scores
    import mynet

    with nlv.Recognizer(*mynet.model(), device="cpu") as recognizer:
        np.testing.assert_allclose(recognizer(clip).scores, scores, atol=1e-6)
