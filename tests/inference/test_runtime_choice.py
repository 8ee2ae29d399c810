"""Choice of the runtime where none was asked for: the table, the first work, the cache, and falling back."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_networks import needs_openvino

import nonlocal_video as nlv
from nonlocal_video.errors import ModelError
from nonlocal_video.inference.runtimes import choice as choice_module
from nonlocal_video.inference.runtimes import openvino as openvino_module
from nonlocal_video.inference.runtimes.choice import WORTH_SECONDS, choose_runtime
from nonlocal_video.inference.runtimes.openvino import OpenVINONetwork
from nonlocal_video.paths import CACHE_VARIABLE

Run = Callable[..., Any]
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)
LOG = "nonlocal_video.runtime"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(logging.getLogger(LOG), "propagate", True)  # a command in another thread may have it to itself
    return tmp_path / "cache" / "openvino"


@pytest.fixture
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any work is worth compiling a network."""
    monkeypatch.setattr(choice_module, "WORTH_SECONDS", 0.0)


@pytest.fixture
def recognizer(tiny_model: Path) -> Iterator[nlv.Recognizer]:
    with nlv.load(tiny_model, device="cpu") as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("option", "how", "runtime", "reason"),
    [
        ("auto", {}, "torch", "would take longer than this work"),
        ("auto", {"seconds_by_torch": WORTH_SECONDS - 0.1}, "torch", "would take longer than this work"),
        ("auto", {"seconds_by_torch": WORTH_SECONDS}, "openvino", "worth compiling"),
        ("auto", {"is_compiled": lambda: True}, "openvino", "is in the cache"),
        ("auto", {"is_compiled": lambda: True, "device": CUDA}, "torch", "the device is cuda:1, and OpenVINO runs on"),
        ("auto", {"is_compiled": lambda: True, "precision": "bf16"}, "openvino", "is in the cache"),
        ("auto", {"is_compiled": lambda: True, "problem": "It broke."}, "torch", "OpenVINO was given up: It broke"),
        ("torch", {"seconds_by_torch": 1e9, "is_compiled": lambda: True}, "torch", "asked for"),
        ("openvino", {"problem": "It broke."}, "openvino", "asked for"),
    ],
)
def test_the_table(
    option: Any, how: dict[str, Any], runtime: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_module, "find_spec", lambda name: object())
    monkeypatch.setattr(choice_module, "has_bfloat16", lambda: True)
    found = choose_runtime(option, **({"device": CPU, "precision": "float32"} | how))
    assert found.runtime == runtime
    assert reason in found.reason


def test_bfloat16_is_pytorchs_where_openvino_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_module, "find_spec", lambda name: object())
    monkeypatch.setattr(choice_module, "has_bfloat16", lambda: False)
    found = choose_runtime("auto", device=CPU, precision="bf16", seconds_by_torch=1e9, is_compiled=lambda: True)
    assert (found.runtime, "no bfloat16 on this CPU" in found.reason) == ("torch", True)


def test_without_the_package_it_is_pytorch(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, clip_folder: Path
) -> None:
    monkeypatch.setattr(openvino_module, "find_spec", lambda name: None)
    found = choose_runtime("auto", device=CPU, precision="float32", seconds_by_torch=1e9, is_compiled=lambda: True)
    assert (found.runtime, "pip install openvino" in found.reason) == ("torch", True)
    with nlv.load(tiny_model, device="cpu") as recognizer:
        assert recognizer.classify(clip_folder / "a.mp4").runtime == "torch"


@pytest.mark.slow
def test_a_short_work_is_pytorchs_and_imports_no_openvino(tiny_model: Path, clip_folder: Path) -> None:
    code = (
        "import sys, nonlocal_video as nlv\n"
        "with nlv.load(sys.argv[1], device='cpu') as r:\n"
        "    print(r.classify(sys.argv[2]).runtime, 'openvino' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tiny_model), str(clip_folder / "a.mp4")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "torch False\n"


@needs_openvino
@pytest.mark.slow
def test_work_that_is_worth_it_compiles_once_and_the_next_start_takes_it_from_the_cache(
    worth_it: None,
    tiny_model: Path,
    clip_folder: Path,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, LOG)
    clip = clip_folder / "a.mp4"
    with nlv.load(tiny_model, device="cpu", runtime="torch") as by_torch:
        expected, line = by_torch.classify(clip), by_torch.timeline(clip)
    with nlv.load(tiny_model, device="cpu") as first:
        timeline = first.timeline(clip)
    assert (line.runtime, timeline.runtime) == ("torch", "openvino")
    np.testing.assert_allclose(timeline.logits, line.logits, atol=1e-4 * np.abs(line.logits).max())
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "Runtime openvino for views of 8 x 48 x 48: the work is worth compiling" in caplog.text
    assert len(list(cache.iterdir())) == 1

    monkeypatch.setattr(choice_module, "WORTH_SECONDS", 1e9)  # a single clip
    monkeypatch.setattr(OpenVINONetwork, "compile", None)  # would fail
    caplog.clear()
    with nlv.load(tiny_model, device="cpu") as second:
        found = second.classify(clip)
        assert second.runtime == "openvino"
        assert "folded" not in vars(second._engine.runner.by_torch)  # PyTorch's copy was not even made
    assert found.runtime == "openvino"
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4 * np.abs(expected.logits).max())
    assert "the compiled network is in the cache" in caplog.text


@needs_openvino
@pytest.mark.slow
def test_a_damaged_entry_is_compiled_again(
    worth_it: None, tiny_model: Path, clip_folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = []
    for _ in range(2):
        with nlv.load(tiny_model, device="cpu") as recognizer:
            answers.append(recognizer.classify(clip_folder / "a.mp4"))
        (path,) = cache.iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in caplog.text
    assert {answer.runtime for answer in answers} == {"openvino"}
    np.testing.assert_array_equal(answers[0].logits, answers[1].logits)


@needs_openvino
def test_what_openvino_cannot_do_is_pytorchs_with_one_warning(
    worth_it: None,
    recognizer: nlv.Recognizer,
    clip_folder: Path,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compile_wrongly(self: OpenVINONetwork, *_: object) -> None:
        self._check("logits", torch.zeros(3), torch.ones(3))

    monkeypatch.setattr(OpenVINONetwork, "compile", compile_wrongly)
    found = [recognizer.classify(clip_folder / "a.mp4") for _ in range(3)]
    assert {one.runtime for one in found} == {"torch"}
    (warning,) = caplog.records
    assert (warning.levelname, warning.name) == ("WARNING", LOG)
    assert "OpenVINO was given up: With OpenVINO the logits of model 'tiny' differ by up to 1" in warning.getMessage()
    assert not cache.exists()
    with (
        nlv.load(recognizer.source, device="cpu", runtime="openvino") as asked,
        pytest.raises(ModelError, match="differ by up to 1"),
    ):
        asked.classify(clip_folder / "a.mp4")


@needs_openvino
@pytest.mark.slow
def test_a_layer_that_only_pytorch_gives(worth_it: None, recognizer: nlv.Recognizer, clip_folder: Path) -> None:
    clip = clip_folder / "a.mp4"
    recognizer.prepare()
    assert recognizer.runtime == "openvino"
    with nlv.load(recognizer.source, device="cpu", runtime="torch") as by_torch:
        expected = by_torch.features(clip, layer="layer2").features
    np.testing.assert_array_equal(recognizer.features(clip, layer="layer2").features, expected)


@needs_openvino
@pytest.mark.slow
def test_the_command_line_names_the_choice_on_standard_error_alone(
    run: Run, tiny_model: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("classify", clip_folder / "a.mp4", "--model", tiny_model, "--device", "cpu", "--json")
    done = run(*command)
    assert set(json.loads(done.out)) >= {"path", "top"}
    assert done.err == (
        "Runtime torch for views of 8 x 48 x 48: compiling the network would take longer than this work.\n"
    )
    assert run(*command, "--runtime", "torch").err == ""
    monkeypatch.setattr(choice_module, "WORTH_SECONDS", 0.0)
    done = run(*command)
    assert (json.loads(done.out)["status"], done.err) == (
        "ok",
        "Runtime openvino for views of 8 x 48 x 48: the work is worth compiling the network.\n",
    )
    assert not logging.getLogger(LOG).handlers  # nothing of it stays in this process


def test_processes_and_clusters_decide_by_themselves() -> None:
    from random_networks import SPEC

    from nonlocal_video.inference.options import RunOptions
    from nonlocal_video.inference.ray.engine import ClusterJob
    from nonlocal_video.inference.request import ClipRequest

    for device, uses_gpus in (("auto", True), ("cuda", True), ("cpu", False)):
        job = ClusterJob("default", SPEC, ClipRequest(), RunOptions(device=device))
        assert (job.options.runtime, job.uses_gpus) == ("auto", uses_gpus)


@pytest.mark.slow
def test_nothing_is_said_of_triton_where_it_is_left_out() -> None:
    """Triton is left out of the Docker image."""
    code = """
import sys
sys.modules["triton"] = None
import torch
from nonlocal_video.inference.runtimes.traceable import trace
torch.version.cuda = "13.0"
trace(torch.nn.Conv3d(3, 1, 1), (1, 3, 2, 2, 2))
assert "torch.utils.flop_counter" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "triton" not in done.stderr


@needs_openvino
@pytest.mark.slow
def test_a_server_is_ready_before_its_page_opens(
    worth_it: None,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from nonlocal_video.app import server

    class Ended(Exception):
        pass

    def create_app(recognizers: list[nlv.Recognizer], **_: object) -> None:
        assert os.environ["GRADIO_TEMP_DIR"] != str(tmp_path), "uploads have a folder of their own"
        compiled.extend((one.runtime, len(one._engine.runner.by_openvino._compiled)) for one in recognizers)
        raise Ended

    compiled: list[tuple[str, int]] = []
    monkeypatch.setattr(server, "create_app", create_app)
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with pytest.raises(Ended):
        server.serve(str(tiny_model), device="cpu", port=0)
    assert compiled == [("openvino", 2)]  # the full and the fast view
    assert capsys.readouterr().out == ""
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path), "the next server of the process finds no deleted folder"
