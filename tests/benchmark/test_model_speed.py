"""`benchmark model`: it times what answers, by turns, and counts what runs."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import needs_openvino
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import nonlocal_video as nlv
from nonlocal_video.analysis.networks import nonlocal_blocks, without_blocks
from nonlocal_video.benchmark.model import Backend, _Case, benchmark_model, multiply_accumulates, open_model
from nonlocal_video.cli.benchmark_text import model_table
from nonlocal_video.inference.preprocessing import ClipLoader
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint
from nonlocal_video.zoo.catalogue import entry

UNPULLED = "i3d-nl-r50-8x8-k400-pyslowfast"


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NONLOCAL_VIDEO_WEIGHTS", str(tmp_path))
    return tmp_path


def test_the_pass_that_is_timed_is_the_one_that_answers(tiny_model: Path, clip_folder: Path) -> None:
    with nlv.load(tiny_model, device="cpu") as recognizer, recognizer.new_reader() as reader:
        path = clip_folder / "a.mp4"
        clip = ClipLoader(reader).load(path, recognizer.card.input, ClipRequest(), originals=None)
        logits = recognizer.forward(clip.network_input(0, 0))
        assert logits.shape == (1, 1, 7)
        np.testing.assert_allclose(logits[0, 0].softmax(0), recognizer.classify(path).scores, atol=1e-6)


def test_every_case_runs_in_every_round(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def watched(self: Recognizer, inputs: Tensor) -> None:
        assert inputs.is_contiguous()
        assert torch.get_num_threads() == 2
        shapes.append(tuple(inputs.shape))

    monkeypatch.setattr(Recognizer, "forward", watched)
    said: list[str] = []
    before = torch.get_num_threads()
    results = benchmark_model(
        [str(tiny_model)], device="cpu", batch_sizes=(1, 2), rounds=3, threads=2, notify=said.append
    )
    assert torch.get_num_threads() == before
    full, fast = (3, 8, 48, 48), (3, 4, 48, 48)
    assert shapes == 4 * [(1, *full), (2, *full), (1, *fast), (2, *fast)]  # the first to warm up
    assert len(said) == results["rounds"] == 3
    assert results["threads"] == results["machine"]["threads"] == 2
    rows = results["rows"]
    assert [(row["view"], row["num_frames"], row["batch_size"]) for row in rows] == [
        ("full", 8, 1), ("full", 8, 2), ("fast", 4, 1), ("fast", 4, 2),
    ]  # fmt: skip
    for row in rows:
        assert row["seconds_per_view"] == pytest.approx(statistics.median(row["seconds"]) / row["batch_size"])
        assert row["views_per_second"] == pytest.approx(1 / row["seconds_per_view"])
        assert row["gmacs_per_second"] == pytest.approx(row["gmacs_per_view"] * row["views_per_second"])
        first, third = row["quartiles_of_seconds_per_view"]
        assert first <= row["seconds_per_view"] <= third
        assert row["time_of_first_row"] == pytest.approx(
            statistics.median(
                one / row["batch_size"] / other for one, other in zip(row["seconds"], rows[0]["seconds"], strict=True)
            )
        )
        assert (row["weights"], row["nonlocal_blocks_run"], row["peak_mib"]) == ("trained", 1, None)
    assert rows[0]["time_of_first_row"] == 1


@needs_openvino
@pytest.mark.slow
def test_runtimes_take_turns_and_name_what_they_run(tiny_model: Path) -> None:
    network, card = load_checkpoint(tiny_model)
    (block,) = nonlocal_blocks(network).values()
    for parameter in block.bn.parameters():
        torch.nn.init.zeros_(parameter)
    silenced = tiny_model.with_name("silenced.safetensors")
    save_checkpoint(silenced, network, card, dtype=torch.float32)
    turns: list[tuple[str, str]] = []
    with pytest.MonkeyPatch.context() as patched:
        run = _Case.run
        patched.setattr(_Case, "run", lambda case, inputs: (turns.append((case.view, case.backend)), run(case, inputs)))
        results = benchmark_model([str(silenced)], runtimes=("eager", "torch", "openvino"), rounds=2, threads=1)
    assert turns == 3 * [(view, backend) for view in ("full", "fast") for backend in ("eager", "torch", "openvino")]
    assert (results["device"], results["openvino"]) == ("cpu", version("openvino"))  # all of them, even beside a GPU
    rows = results["rows"]
    assert [(row["view"], row["runtime"]) for row in rows] == turns[:6]
    assert [row["nonlocal_blocks_run"] for row in rows] == [1, 0, 0, 1, 0, 0]
    for eager, folded, compiled in (rows[:3], rows[3:]):
        assert eager["gmacs_per_view"] > folded["gmacs_per_view"] == compiled["gmacs_per_view"]
        assert compiled["seconds_of_first_pass"] > 0
    assert list(model_table(results).columns[2].cells) == 2 * ["eager", "torch", "openvino"]


def test_networks_without_weights_do_what_the_catalogue_states(no_weights: Path) -> None:
    """Newly initialised blocks would be left out of the pass: 28.4 instead of 36.5."""
    recognizer, weights = open_model(UNPULLED, device="cpu")
    assert weights == "random"
    assert len(recognizer.nonlocal_layers()) == 5
    at_224 = replace(recognizer.card.input, crop=224)
    assert multiply_accumulates(recognizer.inference_network, at_224) / 1e9 == pytest.approx(
        entry(UNPULLED).gmacs, rel=0.01
    )


def test_weights_that_are_here_are_taken(no_weights: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nonlocal_video.zoo.catalogue._is_of", lambda card, published: True)
    shutil.copy(tiny_model, no_weights / f"{UNPULLED}.safetensors")
    recognizer, weights = open_model(UNPULLED, device="cpu")
    assert (weights, recognizer.card.name) == ("trained", "tiny")


def test_a_block_that_adds_zero_is_not_counted(tiny_model: Path) -> None:
    network, card = load_checkpoint(tiny_model)
    (block,) = nonlocal_blocks(network).values()
    for parameter in block.bn.parameters():
        torch.nn.init.zeros_(parameter)
    with FlopCounterMode(display=False) as counter:
        without_blocks(network)(torch.zeros(1, 3, 8, 48, 48))
    recognizer = Recognizer(network, card, device="cpu")
    assert multiply_accumulates(recognizer.inference_network, card.input) == counter.get_total_flops() / 2


@pytest.mark.parametrize("runtime", ["torch", "eager"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("too much"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=("torch", "cudnn", "cublas"),
)
def test_a_batch_that_does_not_fit_says_so(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, runtime: Backend
) -> None:
    convolve = torch.nn.Conv3d.forward

    def small(self: torch.nn.Conv3d, inputs: Tensor) -> Tensor:
        if len(inputs) > 1:
            raise error
        return convolve(self, inputs)

    monkeypatch.setattr(torch.nn.Conv3d, "forward", small)
    results = benchmark_model([str(tiny_model)], device="cpu", runtimes=(runtime,), batch_sizes=(2, 1), rounds=1)
    assert [row["fits"] for row in results["rows"]] == [False, True, False, True]
    assert results["rows"][0]["seconds"] == []
    assert results["rows"][1]["views_per_second"] > 0
    assert results["rows"][1]["time_of_first_row"] is None  # which did not run
    assert list(model_table(results).columns[7].cells)[::2] == ["out of memory"] * 2
    assert json.dumps(results)


def test_another_error_of_a_pass_is_not_taken_for_one_of_memory(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Recognizer, inputs: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Recognizer, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        benchmark_model([str(tiny_model)], device="cpu", rounds=1)


def test_command(tiny_model: Path, tmp_path: Path, run) -> None:
    output = tmp_path / "new" / "model.json"
    done = run(
        *("benchmark", "model", tiny_model, "--device", "cpu", "--batch-size", "1,2", "--rounds", 1),
        *("--threads", 1, "--output", output),
    )
    assert done.status == 0, done.err
    assert "full, 8 x 48²" in done.out
    assert "threads: 1" in done.out
    assert json.loads(output.read_text("utf-8"))["machine"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-size", "1,x"), "such as 4 or 1,2,4"),
        (("--batch-size", "0"), "at least 1"),
        (("--device", "tpu"), "should be auto, cpu"),
        (("--runtime", "torch,tensorrt"), "one or some of torch, openvino, eager"),
        (("i3d-nl-r50-8x8-k400",), "Did you mean"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, tiny_model: Path, run) -> None:
    done = run("benchmark", "model", tiny_model, *arguments)
    assert done.status == 2
    assert message in done.err


@pytest.mark.cuda
def test_memory_on_cuda(tiny_model: Path) -> None:
    results = benchmark_model([str(tiny_model)], device="cuda", batch_sizes=(1, 8), rounds=2)
    one, eight = results["rows"][:2]
    assert 0 < one["peak_mib"] < eight["peak_mib"]
    assert results["device_name"] == torch.cuda.get_device_name(0)
