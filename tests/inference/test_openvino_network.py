"""Answers with OpenVINO are PyTorch's, and what it cannot do is refused in words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from random_networks import (
    KERNELS,
    MODES,
    SPEC,
    assert_every_block_tells,
    clips_of,
    logits_of,
    needs_openvino,
    random_network,
    resnet_card,
)
from torch import Tensor, nn

import nonlocal_video as nlv
from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.inference.aggregation import window_logits
from nonlocal_video.inference.options import RunOptions
from nonlocal_video.inference.ray.engine import ClusterJob, _Network
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.runtimes import openvino as openvino_network
from nonlocal_video.inference.runtimes.device import choose_device
from nonlocal_video.paths import CACHE_VARIABLE
from nonlocal_video.zoo.catalogue import load_network

pytestmark = pytest.mark.slow

Run = Callable[..., Any]
SHARE = 1e-5
"""Largest difference of logits allowed, as a share of the largest logit."""

SCORES = 1e-4
"""Largest difference of scores allowed, where logits are some hundreds, as the tiny model's."""


@pytest.fixture(scope="module", autouse=True)
def _empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def by_torch(tiny_model: Path) -> Iterator[nlv.Recognizer]:
    with nlv.load(tiny_model, device="cpu", runtime="torch") as recognizer:
        yield recognizer


@pytest.fixture(scope="module")
def by_openvino(tiny_model: Path) -> Iterator[nlv.Recognizer]:
    with nlv.load(tiny_model, runtime="openvino") as recognizer:
        yield recognizer


@needs_openvino
def test_every_kernel_gives_the_unfolded_networks_logits() -> None:
    card = resnet_card(KERNELS)
    network = random_network(card)
    clips = clips_of(card, 3)
    expected = logits_of(network, clips)
    largest = np.abs(expected).max()
    assert_every_block_tells(network, clips)

    with nlv.Recognizer(network, card, runtime="openvino") as recognizer:
        found = {count: recognizer.forward(torch.from_numpy(clips[:count])) for count in (1, 2, 3)}
        again = recognizer.forward(torch.from_numpy(clips))
    for count, logits in found.items():
        assert logits.shape == (count, 1, len(card.labels))
        assert np.abs(logits[:, 0].numpy() - expected[:count]).max() < SHARE * largest
    assert torch.equal(found[3], again)


@needs_openvino
def test_the_places_of_a_window_and_other_shapes() -> None:
    plain = replace(resnet_card({}), input=replace(SPEC, short_side=64, crop=64))
    card = replace(plain, head_window=(1, 1, 1))
    network = random_network(card)
    clips = torch.from_numpy(clips_of(card, 2))
    with nlv.Recognizer(network, card, runtime="openvino") as recognizer:
        for shown in (clips, clips[:, :, :4, :48, :48], clips):
            with torch.inference_mode():
                expected = window_logits(card, network, network.forward_to("layer4", shown))
            found = recognizer.forward(shown)
            assert found.shape == expected.shape
            assert found.shape[1] > 1
            assert (found - expected).abs().max() < SHARE * expected.abs().max()
        assert len(recognizer._engine.runner.by_openvino._compiled) == 2  # the first shape's was kept


@needs_openvino
def test_a_window_that_is_too_large_says_so() -> None:
    card = replace(resnet_card({}), head_window=(9, 9, 9))
    with (
        nlv.Recognizer(random_network(card), card, runtime="openvino") as recognizer,
        pytest.raises(nlv.ModelError, match=r"pools \(9, 9, 9\) cells and got \(2, 2, 2\)"),
    ):
        recognizer.forward(torch.from_numpy(clips_of(card, 1)))


@needs_openvino
def test_the_default_models_weights() -> None:
    network, card = load_network("default")
    assert card.fast_input is not None
    card = replace(card, input=replace(card.fast_input, num_frames=16, short_side=64, crop=64), fast_input=None)
    clips = clips_of(card, 2)
    expected = logits_of(network, clips)
    with nlv.Recognizer(network, card, runtime="openvino") as recognizer:
        found = recognizer.forward(torch.from_numpy(clips))[:, 0].numpy()
    assert np.abs(found - expected).max() < SHARE * np.abs(expected).max()


@needs_openvino
def test_files_folders_and_timelines_get_the_same_answers(
    by_torch: nlv.Recognizer, by_openvino: nlv.Recognizer, clip_folder: Path
) -> None:
    clip = clip_folder / "a.mp4"
    for arguments in ({}, {"views": "2x3"}, {"fast": True}):
        expected, found = by_torch.classify(clip, **arguments), by_openvino.classify(clip, **arguments)
        np.testing.assert_allclose(found.scores, expected.scores, atol=SCORES)
        np.testing.assert_array_equal(found.scores, by_openvino.classify(clip, **arguments).scores)
        assert found.summary == f"{expected.summary} (openvino)"
        assert set(found.to_row()) == set(expected.to_row())
    folders = [recognizer.classify_folder(clip_folder).outcomes for recognizer in (by_torch, by_openvino)]
    for expected, found in zip(*folders, strict=True):
        row, expected_row = found.to_row(7), expected.to_row(7)
        assert [row["path"], row["error"]] == [expected_row["path"], expected_row["error"]]
        for one, other in zip(row["top"], expected_row["top"], strict=True):
            assert (one["label"], one["score"]) == (other["label"], pytest.approx(other["score"], abs=SCORES))
    lines = [recognizer.timeline(clip, batch_size=2) for recognizer in (by_torch, by_openvino)]
    np.testing.assert_allclose(lines[1].scores, lines[0].scores, atol=SCORES)
    assert lines[1].summary == f"{lines[0].summary} (openvino)"


@needs_openvino
@pytest.mark.parametrize("blocks", [KERNELS, MODES, {"layer3.0": NonLocalConfig()}], ids=["kernels", "modes", "adds 0"])
def test_maps_of_all_blocks_and_the_last_layer_come_from_the_same_pass(
    blocks: dict[str, NonLocalConfig], clip_folder: Path
) -> None:
    card = resnet_card(blocks)
    network = random_network(card)
    if len(blocks) == 1:
        for parameter in network.get_submodule("layer3.nonlocal0").parameters():
            parameter.data.zero_()  # its input is its output
    views = []
    for runtime in ("torch", "openvino"):
        with nlv.Recognizer(network, card, device="cpu", runtime=runtime) as recognizer:
            views.append(recognizer.explain_all(clip_folder / "a.mp4"))
    expected, found = views
    assert (expected.prediction.runtime, found.prediction.runtime) == ("torch", "openvino")
    assert found.block_inputs.keys() == set(network.nonlocal_layers()) != set()
    assert torch.equal(expected.clip.frames, found.clip.frames)
    for layer in blocks:
        name = f"{layer.partition('.')[0]}.nonlocal0"
        _assert_close(found.block_inputs[name].numpy(), expected.block_inputs[name].numpy())
        _assert_close(found.attention_received(layer=name).cells, expected.attention_received(layer=name).cells)
    point = nlv.QueryPoint(float(expected.seconds[3]), 0.5, 0.5)
    _assert_close(found.query(point).cells, expected.query(point).cells)
    _assert_close(found.class_evidence(2).cells, expected.class_evidence(2).cells)
    _assert_close(found.prediction.logits, expected.prediction.logits)
    _assert_close(found.prediction.features, expected.prediction.features)


def _assert_close(found: NDArray[np.float32] | None, expected: NDArray[np.float32] | None) -> None:
    assert found is not None
    assert expected is not None
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max() > 0


@needs_openvino
def test_threads_take_turns(tiny_model: Path, by_torch: nlv.Recognizer, clip_folder: Path) -> None:
    """The first to come compiles, and not in the main thread."""
    expected = by_torch.classify(clip_folder / "a.mp4").scores
    with nlv.load(tiny_model, runtime="openvino") as recognizer, ThreadPoolExecutor(3) as pool:
        for prediction in pool.map(recognizer.classify, [clip_folder / "a.mp4"] * 3):
            np.testing.assert_allclose(prediction.scores, expected, atol=SCORES)


@needs_openvino
def test_float32_on_as_many_threads_as_pytorch_has(by_openvino: nlv.Recognizer) -> None:
    by_openvino.forward(torch.zeros(1, 3, 8, 48, 48))
    for compiled in by_openvino._engine.runner.by_openvino._compiled.values():
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert compiled.get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()
        assert compiled.get_property("ENABLE_CPU_PINNING") is False


@needs_openvino
def test_scores_that_are_not_finite_are_an_error_that_names_the_layer() -> None:
    card = resnet_card({})
    network = random_network(card)
    with torch.no_grad():
        network.get_submodule("layer2.0.conv1.conv").weight[0] = float("nan")
    with (
        nlv.Recognizer(network, card, runtime="openvino") as broken,
        pytest.raises(nlv.ModelError, match=r"not finite.*layer2\.0\.conv1"),
    ):
        broken.forward(torch.from_numpy(clips_of(card, 1)))


@needs_openvino
def test_other_logits_than_pytorchs_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    card = resnet_card({})
    network = random_network(card)
    clips = torch.from_numpy(clips_of(card, 2))
    with nlv.Recognizer(network, card, runtime="openvino") as recognizer:
        recognizer._engine.folded.fc.bias.data += 1
        for _ in range(2):  # nothing wrong is kept
            with pytest.raises(nlv.ModelError, match=r"differ by up to 1 from PyTorch's.*Use --runtime torch"):
                recognizer.forward(clips)


@needs_openvino
def test_a_network_that_cannot_be_compiled() -> None:
    class Branching(nn.Module):
        def forward(self, clips: Tensor) -> Tensor:
            mean = clips.mean(dim=(2, 3, 4))
            return mean if mean.sum() > 0 else mean * 2

    with (
        nlv.Recognizer(Branching(), resnet_card({}), runtime="openvino") as recognizer,
        pytest.raises(nlv.ModelError, match=r"'small' cannot be compiled by OpenVINO for clips of \(3, 4, 8, 8\): .*"
                      r"Use --runtime torch\."),
    ):  # fmt: skip
        recognizer.forward(torch.zeros(1, 3, 4, 8, 8))


TWO_THAT_END = """
import gc, signal, subprocess, sys
import torch
import nonlocal_video as nlv

signal.signal(signal.SIGCHLD, lambda *_: None)
recognizers = [nlv.load(sys.argv[1], device="cpu", runtime="openvino") for _ in range(2)]
for recognizer in recognizers:
    recognizer.forward(torch.zeros(1, 3, 8, 48, 48))
del recognizer
while recognizers:
    recognizers.pop(0).close()
    gc.collect()
subprocess.run([sys.executable, "-c", ""], check=True)
"""


@needs_openvino
def test_a_signal_after_two_recognisers_ended_does_not_kill(tiny_model: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", TWO_THAT_END, str(tiny_model)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@needs_openvino
def test_it_runs_on_the_cpu() -> None:
    assert choose_device("auto", runtime="openvino") == torch.device("cpu")
    for device in ("cuda", "cuda:1"):
        with pytest.raises(nlv.UsageError, match=r"runs on the CPU\. Use --device auto or cpu, or --runtime torch"):
            choose_device(device, runtime="openvino")
        with pytest.raises(nlv.UsageError, match="runs on the CPU"):  # before a cluster is asked for anything
            ClusterJob("default", SPEC, ClipRequest(), RunOptions(device=device, runtime="openvino"))
    assert not ClusterJob("default", SPEC, ClipRequest(), RunOptions(runtime="openvino")).uses_gpus
    assert ClusterJob("default", SPEC, ClipRequest()).uses_gpus


def test_an_actor_of_a_cluster_takes_it(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_network, "find_spec", lambda name: object())
    actor = _Network(ClusterJob(str(tiny_model), SPEC, ClipRequest(), RunOptions(runtime="openvino")))
    with actor.recognizer as recognizer:
        assert recognizer.runtime == "openvino"


def test_an_unknown_runtime(tiny_model: Path) -> None:
    with pytest.raises(nlv.UsageError, match="runtime = 'tensorrt' should be one of auto, torch, openvino"):
        nlv.load(tiny_model, runtime="tensorrt")


def test_without_the_package(run: Run, tiny_model: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_network, "find_spec", lambda name: None)
    for engine in ("local", "ray"):
        done = run("classify", clip_folder, "--model", tiny_model, "--runtime", "openvino", "--engine", engine)
        assert (done.status, done.out) == (2, "")
        assert done.err == "runtime = 'openvino' needs openvino: pip install openvino\n"


@pytest.mark.parametrize("verb", [("classify",), ("timeline",), ("benchmark", "pipeline")])
def test_verbs_hand_it_on(verb: tuple[str, ...], run: Run, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_network, "find_spec", lambda name: None)
    done = run(*verb, clip_folder / "a.mp4", "--runtime", "openvino")
    assert done.status == 2
    assert "needs openvino" in done.err


def test_evaluate_and_serve_hand_it_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_network, "find_spec", lambda name: None)
    (tmp_path / "clips.csv").write_text("path,label\ngone.mp4,archery\n")
    for arguments in (("evaluate", tmp_path / "clips.csv"), ("serve", "--port", "0")):
        done = run(*arguments, "--runtime", "openvino")
        assert done.status == 2
        assert "needs openvino" in done.err


@needs_openvino
def test_a_run_goes_on_with_it(run: Run, tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    """The scores are the same up to rounding, as with another device."""
    output = tmp_path / "table.jsonl"
    begun = run("classify", clip_folder / "a.mp4", "--model", tiny_model, "--output", output, "--runtime", "torch")
    assert begun.status == 0
    done = run(
        *("classify", clip_folder, "--exclude", "note.mp4", "--model", tiny_model, "--output", output, "--resume"),
        *("--runtime", "openvino"),
    )
    assert (done.status, done.err) == (0, "3 files: 3 ok (1 of them done before)\n")
    assert done.out.count("cpu (openvino)") == 2
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert len({tuple(row) for row in rows}) == 1  # the same keys
