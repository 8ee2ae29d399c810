"""`--precision`: what the network computes in, where it is refused, and that no table mixes two of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_networks import needs_openvino

import nonlocal_video as nlv
from nonlocal_video.errors import UsageError
from nonlocal_video.inference import precision as precision_module
from nonlocal_video.inference.options import RunOptions
from nonlocal_video.inference.precision import arithmetic, check_precision
from nonlocal_video.inference.ray.engine import ClusterJob
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.runtimes.openvino import has_bfloat16
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.paths import CACHE_VARIABLE

CUDA = torch.device("cuda", 0)
FRAMES = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("num_views", [1, 2])
def test_bf16_is_pytorchs_autocast_and_gives_float32(unsure_model: Path, num_views: int) -> None:
    clips = torch.randn(num_views, 3, 8, 48, 48)
    with nlv.load(unsure_model, device="cpu") as exact, nlv.load(unsure_model, device="cpu", precision="bf16") as fast:
        wanted, found = exact.forward(clips), fast.forward(clips)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            again = exact.inference_network(clips.contiguous(memory_format=torch.channels_last_3d))
    assert found.dtype == torch.float32
    assert torch.equal(found[:, 0], again.float())
    difference = float((found - wanted).abs().max() / wanted.abs().max())
    assert 1e-5 < difference < 0.05


def test_a_callers_autocast_changes_nothing(recognizer: Recognizer) -> None:
    clips = torch.randn(1, 3, 8, 48, 48)
    wanted = recognizer.forward(clips)
    with torch.autocast("cpu", torch.bfloat16):
        found = recognizer.forward(clips)
    assert torch.equal(found, wanted)


def test_maps_are_computed_in_float32_from_what_bf16_gave(unsure_model: Path) -> None:
    with nlv.load(unsure_model, device="cpu", precision="bf16") as fast:
        explanation = fast.explain_all(FRAMES, frames_per_second=10.0)
        assert {features.dtype for features in explanation.block_inputs.values()} == {torch.float32}
        assert explanation.features is not None
        assert explanation.features.dtype == torch.float32
        maps = explanation.maps(method="attention")
        name, features = "layer3.nonlocal0", explanation.block_inputs["layer3.nonlocal0"]
        block: Any = fast.network.get_submodule(name)
        with torch.inference_mode():
            weights = block.attention(features, torch.arange(features[0, 0].numel()))[0].double()
    wanted = weights.mean(0) * weights.shape[1]
    assert np.abs(maps.cells.ravel() - wanted.numpy()).max() < 1e-5 * float(wanted.max())
    assert "cpu (bf16)" in explanation.prediction.summary


def test_the_words_of_a_timeline_say_the_precision(unsure_model: Path, clip_folder: Path) -> None:
    with nlv.load(unsure_model, device="cpu", precision="bf16") as fast:
        assert "cpu (bf16)" in fast.timeline(clip_folder / "a.mp4").summary


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_tf32_is_on_inside_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # PyTorch's own default, and False for products
    with arithmetic("float32", CUDA):
        assert [switch.allow_tf32 for switch in switches] == [False, False]
        with arithmetic("tf32", CUDA):
            assert [switch.allow_tf32 for switch in switches] == [True, True]
        assert [switch.allow_tf32 for switch in switches] == [False, False]
        with arithmetic("bf16", CUDA):
            assert [switch.allow_tf32 for switch in switches] == [False, False]
    assert [switch.allow_tf32 for switch in switches] == [True, False]


def test_threads_do_not_switch_tf32_for_each_other() -> None:
    inside, leave = threading.Event(), threading.Event()
    seen: list[bool] = []

    def exact() -> None:
        with arithmetic("float32", CUDA):
            inside.set()
            leave.wait(10)
            seen.append(torch.backends.cuda.matmul.allow_tf32)

    def rounded() -> None:
        with arithmetic("tf32", CUDA):
            seen.append(torch.backends.cuda.matmul.allow_tf32)

    threads = [threading.Thread(target=exact), threading.Thread(target=rounded)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    threads[1].join(0.1)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert seen == [False, True]


@pytest.mark.parametrize("verb", ["classify", "timeline", "explain", "evaluate", "serve"])
def test_tf32_is_refused_on_a_cpu(verb: str, run: Callable[..., Any], clip_folder: Path, tiny_model: Path) -> None:
    arguments = {"serve": ["--port", 0], "evaluate": [_labelled(clip_folder)]}.get(verb, [clip_folder / "a.mp4"])
    done = run(verb, *arguments, "--model", tiny_model, "--device", "cpu", "--precision", "tf32")
    assert done.status == 2
    assert "tf32" in done.err
    assert "--precision float32 or bf16" in " ".join(done.err.split())


def _labelled(folder: Path) -> Path:
    table = folder.parent / "labelled.csv"
    table.write_text(f"path,label\n{folder / 'a.mp4'},action 0\n{folder / 'b' / 'c.mp4'},action 1\n")
    return table


@needs_openvino
def test_openvino_refuses_what_it_has_not(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "has_bfloat16", lambda: False)
    with pytest.raises(UsageError, match=r"no bfloat16 on this CPU. Use --precision float32, or --runtime torch"):
        nlv.load(tiny_model, device="cpu", runtime="openvino", precision="bf16")
    with pytest.raises(UsageError, match="'tf32' needs an NVIDIA GPU"):
        nlv.load(tiny_model, runtime="openvino", precision="tf32")


@needs_openvino
def test_openvino_computes_in_bfloat16(
    unsure_model: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_bfloat16():
        pytest.skip("OpenVINO has no bfloat16 on this CPU")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    clips = torch.randn(2, 3, 8, 48, 48)
    with nlv.load(unsure_model, device="cpu", runtime="torch") as exact:
        wanted = exact.forward(clips)
    with nlv.load(unsure_model, runtime="openvino", precision="bf16") as fast:
        found = fast.forward(clips)
        assert "cpu (openvino, bf16)" in fast.classify(clip_folder / "a.mp4").summary
    difference = float((found - wanted).abs().max() / wanted.abs().max())
    assert 1e-5 < difference < 0.05
    with nlv.load(unsure_model, runtime="openvino") as again:  # the compiled network of the other precision is kept
        assert float((again.forward(clips) - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_an_unknown_precision_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="precision = 'fp16' should be one of float32, tf32, bf16"):
        nlv.load(tiny_model, device="cpu", precision="fp16")


@pytest.mark.parametrize(("capability", "takes"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_gpu_without_that_arithmetic_refuses_it(
    precision: Any, capability: tuple[int, int], takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla T4")
    check_precision("float32", CUDA)
    if takes:
        check_precision(precision, CUDA)
    else:
        with pytest.raises(UsageError, match=rf"Tesla T4 has compute capability 7.5, and {precision} needs 8.0"):
            check_precision(precision, CUDA)


def test_a_cluster_job_refuses_what_no_machine_can(tiny_model: Path) -> None:
    spec = read_card(tiny_model).input
    with pytest.raises(UsageError, match="the device is the CPU"):
        ClusterJob(str(tiny_model), spec, ClipRequest(), RunOptions(device="cpu", precision="tf32"))
    assert ClusterJob(str(tiny_model), spec, ClipRequest(), RunOptions(precision="tf32")).options.precision == "tf32"


def test_no_table_mixes_precisions(
    run: Callable[..., Any], clip_folder: Path, unsure_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rows.jsonl"
    command = ["classify", clip_folder / "a.mp4", "--model", unsure_model, "--device", "cpu", "--output", output]
    assert run(*command, "--precision", "bf16").status == 0
    refused = run(*command, "--resume")
    assert refused.status == 2
    assert "precision was 'bf16' and is 'float32'" in " ".join(refused.err.split())
    assert run(*command, "--resume", "--precision", "bf16").status == 0


def test_an_evaluation_says_and_keeps_its_precision(
    run: Callable[..., Any], clip_folder: Path, unsure_model: Path, tmp_path: Path
) -> None:
    command = ["evaluate", _labelled(clip_folder), "--model", unsure_model, "--device", "cpu"]
    command += ["--output", tmp_path / "report", "--json"]
    done = run(*command, "--precision", "bf16")
    assert done.status == 0, done.err
    assert '"precision": "bf16"' in json.dumps(json.loads(done.out))
    refused = run(*command, "--resume")
    assert refused.status == 2
    assert "precision was 'bf16' and is 'float32'" in " ".join(refused.err.split())
