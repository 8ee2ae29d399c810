"""A recogniser in many threads: explanations, answers and timelines together are what they are one by one."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import nonlocal_video as nlv
from nonlocal_video.attention.geometry import layer_grids
from nonlocal_video.inference import shared_network

QUERY = (0.5, 0.5, 0.4)
BLOCK = "layer3.nonlocal0"


@pytest.fixture
def recognizer(tiny_model: Path):
    with nlv.load(tiny_model, device="cpu") as loaded:
        yield loaded


def asked(recognizer: nlv.Recognizer, clip: Path) -> dict[str, Callable[[], NDArray[np.floating]]]:
    """Everything that uses the network, hooks on the layers that others run included."""

    def cells(**arguments: object) -> Callable[[], NDArray[np.floating]]:
        return lambda: recognizer.explain(clip, **arguments).cells

    return {
        "classify": lambda: recognizer.classify(clip).scores,
        "timeline": lambda: recognizer.timeline(clip).scores,
        "attention": cells(method="attention"),
        "query": cells(query=QUERY),
        "evidence": cells(label=3),
        "fast": cells(label=1, fast=True),
        "grad-cam 2": cells(label=2, layer="layer2"),
        "grad-cam 3": cells(label=2, layer="layer3"),
        "grad-cam of the block": cells(label=4, layer=BLOCK),
        "grad-cam of its theta": cells(label=4, layer=f"{BLOCK}.theta"),
    }


@pytest.mark.slow
def test_eight_threads(recognizer, clip_folder: Path) -> None:
    questions = asked(recognizer, clip_folder / "a.mp4")
    expected = {name: question() for name, question in questions.items()}
    assert expected["grad-cam 2"].any()
    assert not np.array_equal(expected["attention"], expected["query"])
    needed = [parameter.requires_grad for parameter in recognizer.network.parameters()]
    recognizer._engine.shared._grids.clear()  # the threads find nothing prepared
    names = [name for name in questions for _ in range(6)]
    random.Random(0).shuffle(names)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: questions[name](), names))
    for name, answer in zip(names, answers, strict=True):
        np.testing.assert_allclose(answer, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert [parameter.requires_grad for parameter in recognizer.network.parameters()] == needed
    assert not any(module._forward_hooks or module._backward_hooks for module in recognizer.network.modules())


def test_a_grid_is_computed_once(recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[tuple[object, ...]] = []

    def counted(network: torch.nn.Module, size: tuple[int, int, int], layers: list[str]):
        computed.append((size, *layers))
        return layer_grids(network, size, layers)

    monkeypatch.setattr(shared_network, "layer_grids", counted)
    clip = clip_folder / "a.mp4"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: recognizer.explain(clip), range(4)))
    recognizer.explain(clip, query=QUERY)
    recognizer.explain(clip, fast=True)
    recognizer.explain(clip, label=0)
    feature_layer = recognizer.network.feature_layer
    assert computed == [((8, 48, 48), BLOCK), ((4, 48, 48), BLOCK), ((8, 48, 48), feature_layer)]


def test_the_copy_for_grids_has_no_weights(recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying them took two seconds a map."""
    network = recognizer.network

    def refuse(self: torch.Tensor, memo: object) -> None:
        raise AssertionError("a tensor is copied")

    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", refuse)
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", refuse)
    grid = layer_grids(network, (8, 48, 48), [BLOCK])[BLOCK]
    monkeypatch.undo()
    with torch.inference_mode():
        features = network.extract_features(torch.zeros(1, 3, 8, 48, 48), ["stage3"])["stage3"]
    assert grid.size == tuple(features.shape[2:])
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
