"""Refusals are in words and leave no file; what was there stays."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_networks import random_network, resnet_card
from torch import Tensor, nn

from nonlocal_video.cli.export import _outputs
from nonlocal_video.errors import ExportError, ModelError, OutputError, UsageError
from nonlocal_video.export import formats, write
from nonlocal_video.export.check import Agreement, compare, synthetic_clips
from nonlocal_video.export.write import export_network
from nonlocal_video.inference.runtimes.openvino import import_openvino

Run = Callable[..., Any]


@pytest.fixture
def off_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes exporting change one weight."""
    exportable = write.exportable

    def change(by: float) -> None:
        def wrong(*arguments: Any, **options: Any) -> Any:
            copied, notes = exportable(*arguments, **options)
            copied.network.fc.bias[3] += by
            return copied, notes

        monkeypatch.setattr(write, "exportable", wrong)

    return change


def test_a_file_with_other_logits_is_not_kept(off_by: Callable[[float], None], tmp_path: Path) -> None:
    card = resnet_card({})
    network = random_network(card)
    network.fc.weight.data.mul_(0)
    network.fc.bias.data[:] = torch.arange(7.0)
    path = tmp_path / "model.pt2"
    path.write_text("an earlier file")
    off_by(6.5e-4)  # 1.08e-4 of the largest logit, which is 6
    with pytest.raises(ExportError, match=r"differ by up to 0\.00065, 1\.1e-04 of the largest logit, where 1e-04 is"):
        export_network(network, card, path, format_name="torch-export")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "an earlier file"


def test_what_is_close() -> None:
    expected = np.array([[0, -2]], np.float32)
    assert compare(expected, expected).is_close
    assert compare(expected, expected + np.float32(1.9e-4)).is_close
    assert not compare(expected, expected + np.float32(2.1e-4)).is_close
    assert not compare(expected, np.array([[1, np.nan]], np.float32)).is_close
    assert not Agreement(1.0, 0.0, 1).is_close
    with pytest.raises(ValueError, match="shape"):
        compare(expected, np.ones((1, 1), np.float32))


def test_a_network_that_no_file_can_hold(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, clips: Tensor) -> Tensor:
            mean = clips.mean(dim=(2, 3, 4))
            return mean if mean.sum() > 0 else mean * 2

    with pytest.raises(ExportError, match="torch-export cannot hold this network: "):
        export_network(Branching().eval(), resnet_card({}), tmp_path / "model.pt2", format_name="torch-export")
    assert not list(tmp_path.iterdir())


def test_a_network_without_an_answer_is_not_exported(tmp_path: Path) -> None:
    card = resnet_card({})
    network = random_network(card)
    network.fc.bias.data[0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        export_network(network, card, tmp_path / "model.pt2", format_name="torch-export")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    card = resnet_card({})
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"model\.pt2 cannot be written"):
        export_network(random_network(card), card, tmp_path / "file" / "model.pt2", format_name="torch-export")


@pytest.mark.parametrize(
    ("name", "ending", "message"),
    [("onnx", ".xml", "should end in .onnx"), ("tensorrt", ".plan", "one of onnx, openvino, torch-export")],
)
def test_wrong_arguments(name: str, ending: str, message: str, tmp_path: Path) -> None:
    card = resnet_card({})
    with pytest.raises(UsageError, match=message):
        export_network(nn.Identity(), card, tmp_path / f"model{ending}", format_name=name)
    with pytest.raises(UsageError, match="no fast view"):
        export_network(nn.Identity(), card, tmp_path / "model.pt2", format_name="torch-export", fast=True)


def test_made_up_clips_are_as_bright_as_real_ones() -> None:
    spec = replace(resnet_card({}).input, mean=(0.2, 0.5, 0.8), std=(0.1, 0.2, 0.4))
    clips = synthetic_clips(spec, 3)
    assert clips.shape == (3, 3, 8, 36, 36)
    assert clips.dtype == np.float32
    np.testing.assert_array_equal(clips, synthetic_clips(spec, 3))
    colours = clips * np.array(spec.std).reshape(3, 1, 1, 1) + np.array(spec.mean).reshape(3, 1, 1, 1)
    assert colours.min() > -1e-6
    assert colours.max() < 1 + 1e-6
    assert all(np.ptp(one) > 0.5 for one in colours)
    between = np.abs(np.diff(colours, axis=2)).mean(axis=(1, 2, 3, 4))  # from frame to frame
    assert between[0] > 3 * between[1:].max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "onnx,onxn", "--output", "m"), "contains 'onxn'; the formats are onnx, openvino, torch-export"),
        (("--format", "onnx", "--output", "m.xml"), "suffix of openvino"),
        (("--format", "onnx,openvino", "--output", "m.onnx"), "each format adds its own"),
        (("--format", "onnx", "--output", "m", "--batch-size", "0"), "batch-size"),
        (("--format", "onnx"), "output"),
    ],
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...], message: str, run: Run, tiny_model: Path) -> None:
    done = run("export", tiny_model, *arguments)
    assert (done.status, done.out) == (2, "")
    assert message in done.err


def test_a_missing_package_is_named_before_any_work(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name in ("onnxruntime", "onnxscript") else object())
    done = run("export", tiny_model, "--format", "torch-export,onnx", "--output", tmp_path / "model")
    assert (done.status, done.out) == (2, "")
    assert done.err == "--format onnx needs onnxruntime, onnxscript: pip install 'nonlocal-video[onnx]'\n"
    assert not list(tmp_path.iterdir())


def test_the_extras_bring_what_the_formats_need() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    always = {line.partition(">=")[0] for line in project["dependencies"]}
    for known in formats.FORMATS.values():
        brought = project["optional-dependencies"][known.extra] if known.extra else ()
        assert [line.partition(">=")[0] for line in brought] == [one for one in known.packages if one not in always]


def test_openvino_reports_nothing_to_its_makers() -> None:
    import_openvino()
    from openvino.tools import ovc

    assert type(ovc.telemetry).__module__ == "openvino.tools.ovc.telemetry_stub"


def test_a_runs_folder(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(tiny_model, folder / "best.safetensors")
    (folder / "config.json").write_text("{}")
    output = tmp_path / "new" / "v1.2"
    done = run("export", folder, "--format", "torch-export", "--output", output, "--fast", "--batch-size", 2)
    assert (done.status, done.err) == (0, "")
    assert [path.name for path in output.parent.iterdir()] == ["v1.2.pt2"]
    first, checked, timed = done.out.splitlines()
    assert first.startswith(f"{output}.pt2: ")
    assert first.endswith(" MB, clip (2, 3, 4, 48, 48) -> logits, float32")
    assert f"checked with torch {version('torch')} on 4 random views: largest difference" in checked
    assert "1 thread(s): PyTorch" in timed.replace(f"{torch.get_num_threads()} thread", "1 thread")
    assert timed.endswith(" times PyTorch's speed")


@pytest.mark.parametrize(
    ("names", "output", "files"),
    [
        ("onnx", "a/m.onnx", ["a/m.onnx"]),
        ("openvino", "v1.2", ["v1.2.xml"]),
        ("torch-export, onnx,onnx", "v1.2", ["v1.2.pt2", "v1.2.onnx"]),
        ("onnx", "model.safetensors", ["model.safetensors.onnx"]),
    ],
)
def test_each_format_adds_its_ending(names: str, output: str, files: list[str]) -> None:
    assert list(_outputs(names, Path(output)).values()) == [Path(name) for name in files]


def test_a_refusal_is_status_1(run: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("No such operation\nin many words.")

    monkeypatch.setattr(write, "trace", refuse)
    done = run("export", tiny_model, "--format", "torch-export", "--output", tmp_path / "m")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("torch-export cannot hold this network: RuntimeError: No such operation. Nothing was")
    assert not list(tmp_path.iterdir())
