"""OpenVINO computes several views at the same time, with the answers that each has alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_networks import KERNELS, clips_of, needs_openvino, random_network, resnet_card
from torch import Tensor

import nonlocal_video as nlv
from nonlocal_video.inference.runtimes import openvino as runtime
from nonlocal_video.inference.runtimes.answer import NetworkAnswer
from nonlocal_video.inference.runtimes.openvino import AT_ONCE, OpenVINONetwork
from nonlocal_video.paths import CACHE_VARIABLE

pytestmark = [pytest.mark.slow, needs_openvino]


@pytest.fixture(autouse=True)
def _two_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads, where the tests have one, and an empty cache."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of views that OpenVINO is given together."""
    found: list[int] = []
    run = OpenVINONetwork.__call__

    def noted(self: OpenVINONetwork, views: Tensor) -> NetworkAnswer:
        found.append(len(views))
        return run(self, views)

    monkeypatch.setattr(OpenVINONetwork, "__call__", noted)
    return found


@pytest.mark.parametrize("count", [2, 4])
def test_all_outputs_are_those_of_each_view_alone(count: int) -> None:
    card = resnet_card(KERNELS)
    views = torch.from_numpy(clips_of(card, count))
    with nlv.Recognizer(random_network(card), card, runtime="openvino") as recognizer:
        network = recognizer._engine.runner.by_openvino
        alone = []
        for view in views.split(1):
            recognizer.forward(view)
            alone.append(network(view))
        assert network.is_compiled(views.shape[1:], count)
        found = network(views)
        streams = {at: one.get_property("NUM_STREAMS") for (_, at), one in network._compiled.items()}
        assert network.is_compiled(views.shape[1:], 3)
        assert len(network._compiled) == 2, "an odd number is one request, with all threads"
    assert streams == {1: 1, AT_ONCE: AT_ONCE}
    assert torch.equal(found.logits, torch.cat([one.logits for one in alone]))
    assert found.features is not None
    assert torch.equal(found.features, torch.cat([one.features for one in alone if one.features is not None]))
    assert found.kept.inputs.keys() == set(network.inputs_of) != set()
    for name, values in found.kept.inputs.items():
        assert torch.equal(values, torch.cat([one.kept.inputs[name] for one in alone]))


def test_a_folder_is_handed_over_by_twos_with_the_answers_of_single_clips(
    tiny_model: Path, clip_folder: Path, batches: list[int]
) -> None:
    with nlv.load(tiny_model, runtime="openvino") as recognizer:
        found = recognizer.classify_folder(clip_folder).outcomes
        assert sorted(batches) == [1, 2]  # three clips, and a file that is none
        for outcome in found:
            if isinstance(outcome, nlv.Prediction):
                alone = recognizer.classify(outcome.path)
                np.testing.assert_array_equal(outcome.scores, alone.scores)
        batches.clear()
        assert len(recognizer.timeline(clip_folder / "a.mp4", stride_seconds=0.2)) == 7
        assert batches == [2, 2, 2, 1]
        batches.clear()
        recognizer.features(clip_folder / "a.mp4", stride_seconds=0.2)
        assert batches == [2, 2, 2, 1]
        batches.clear()
        recognizer.classify(clip_folder / "a.mp4", views="3x1")
        assert batches == [2, 1]
        batches.clear()
        recognizer.timeline(clip_folder / "a.mp4", stride_seconds=0.2, batch_size=1)
        assert set(batches) == {1}, "who asks for single windows gets them one by one"


def test_the_next_process_takes_both_forms_from_one_entry(tiny_model: Path, clip_folder: Path) -> None:
    with nlv.load(tiny_model, runtime="openvino") as first:
        first.classify(clip_folder / "a.mp4")
        entries = first._engine.runner.by_openvino._cache.entries()
    with nlv.load(tiny_model, runtime="auto") as second:
        second.classify_folder([clip_folder / "a.mp4", clip_folder / "b" / "c.mp4"])
        network = second._engine.runner.by_openvino
        assert second.runtime == "openvino"
        assert [at for _, at in network._compiled] == [AT_ONCE], "a form that is not needed is not made"
        second.classify(clip_folder / "a.mp4")
        assert [at for _, at in network._compiled] == [AT_ONCE, 1]
        assert network._cache.entries() == entries != []


@pytest.mark.parametrize("reason", ["PyTorch", "one thread", "another layer"])
def test_one_by_one_where_it_gains_nothing(
    reason: str, tiny_model: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "one thread":
        torch.set_num_threads(1)
    with nlv.load(tiny_model, runtime="torch" if reason == "PyTorch" else "openvino") as recognizer:
        given: list[int] = []
        run = recognizer._engine.runner.__call__

        def noted(self: Any, views: Tensor, **arguments: Any) -> Any:
            given.append(len(views))
            return run(views, **arguments)

        monkeypatch.setattr(type(recognizer._engine.runner), "__call__", noted)
        layer = "layer1" if reason == "another layer" else None
        recognizer.features(clip_folder / "a.mp4", stride_seconds=0.2, layer=layer)
        assert given == [1] * 7
        assert recognizer.at_once == (AT_ONCE if reason == "another layer" else 1)


def test_where_memory_runs_out_for_two_each_is_computed_alone(
    tiny_model: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OpenVINONetwork.__call__
    given = []

    def small(self: OpenVINONetwork, views: Tensor) -> NetworkAnswer:
        given.append(len(views))
        if len(views) > 1:
            raise RuntimeError("[CPU] Check 'ptr' failed: Failed to allocate 1024 bytes of memory")
        return run(self, views)

    monkeypatch.setattr(OpenVINONetwork, "__call__", small)
    with nlv.load(tiny_model, runtime="openvino") as recognizer:
        timeline = recognizer.timeline(clip_folder / "a.mp4", stride_seconds=0.2)
    assert len(timeline) == 7
    assert given == [2, *[1] * 7], "tried once, and remembered"


def test_a_form_that_answers_otherwise_is_an_error_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    card = resnet_card({})
    run = OpenVINONetwork._run
    forms = []

    def damaged(self: OpenVINONetwork, network: Any, views: Tensor) -> NetworkAnswer:
        forms.append(network.get_property("NUM_STREAMS"))
        answer = run(self, network, views)
        return answer if forms[-1] == 1 else NetworkAnswer(answer.logits + 1, answer.features, answer.kept)

    monkeypatch.setattr(OpenVINONetwork, "_run", damaged)
    with nlv.Recognizer(random_network(card), card, runtime="openvino") as recognizer:
        with pytest.raises(nlv.ModelError, match=r"the logits of model 'small' differ"):
            recognizer.forward(torch.from_numpy(clips_of(card, 1)))
        assert forms == [1, AT_ONCE]
        assert recognizer._engine.runner.by_openvino._compiled == {}
        assert recognizer._engine.runner.by_openvino._cache.entries() == []


def test_where_the_second_form_cannot_be_made_pytorch_answers(
    tiny_model: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(self: OpenVINONetwork, blob: bytes, num_streams: int) -> Any:
        raise RuntimeError("no such property: NUM_STREAMS")

    monkeypatch.setattr(OpenVINONetwork, "_imported", refused)
    monkeypatch.setattr("nonlocal_video.inference.runtimes.choice.WORTH_SECONDS", 0.0)
    with nlv.load(tiny_model, device="cpu", runtime="auto") as recognizer:
        timeline = recognizer.timeline(clip_folder / "a.mp4", stride_seconds=0.2)
    assert (len(timeline), recognizer.runtime) == (7, "torch")
    assert "cannot be compiled by OpenVINO for clips of (3, 8, 48, 48): RuntimeError: no such property" in caplog.text


class _Request:
    """An inference request that fails at one of its starts."""

    def __init__(self, log: list[str], name: str, *, fails: bool) -> None:
        self.log, self.name, self.fails = log, name, fails

    def start_async(self, view: Any, *, share_inputs: bool) -> None:
        assert share_inputs
        assert view.shape[0] == 1
        self.log.append(f"start {self.name}")
        if self.fails:
            raise RuntimeError("no memory")

    def wait(self) -> None:
        self.log.append(f"wait {self.name}")
        if self.fails:
            raise RuntimeError("it was never started")


def test_after_an_error_nothing_reads_the_views_any_more() -> None:
    log: list[str] = []

    class Network:
        names = iter("ab")

        def create_infer_request(self) -> _Request:
            name = next(self.names)
            return _Request(log, name, fails=name == "b")

    card = resnet_card({})
    network = OpenVINONetwork(random_network(card), card, runtime.CompiledCache())
    with pytest.raises(RuntimeError, match="no memory"):
        network._run_at_once(Network(), torch.zeros(3, 3, 4, 8, 8), 2)
    assert log == ["start a", "start b", "wait a", "wait b"]
