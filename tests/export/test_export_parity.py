"""A written file gives the network's logits, in every format, opened as its users open it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

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
    inception_card,
    logits_of,
    random_network,
    resnet_card,
    size_of,
)
from torch import nn

from nonlocal_video.export.exportable import ViewLogits
from nonlocal_video.export.formats import FORMATS
from nonlocal_video.export.write import Exported, export_network
from nonlocal_video.inference.aggregation import average_scores, window_logits
from nonlocal_video.inference.runtimes.openvino import import_openvino
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import typed
from nonlocal_video.zoo.catalogue import load_network

CARD = "nonlocal_video.card"


def opened(path: Path, clips: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """Logits and card of a file, by its runtime alone."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return session.run(["logits"], {"clip": clips})[0], session.get_modelmeta().custom_metadata_map[CARD]
    if path.suffix == ".xml":
        openvino = import_openvino()
        core = openvino.Core()
        model = core.read_model(path)
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return compiled({"clip": clips})["logits"], model.get_rt_info(CARD).value
    extra = {CARD: ""}
    program = torch.export.load(path, extra_files=extra)
    return program.module()(torch.from_numpy(clips)).numpy(), extra[CARD]


def written(card: ModelCard, network: nn.Module, folder: Path, name: str, **options: object) -> Exported:
    return export_network(network, card, folder / f"model{FORMATS[name].ending}", format_name=name, **options)


CASES = {
    "kernels": resnet_card(KERNELS),
    "modes": resnet_card(
        MODES,
        factorised=True,
        stem_mid_channels=5,
        temporal_pool=2,
        stage_strides=[[1, 1, 1], [1, 2, 2], [1, 2, 2], [1, 2, 2]],
        dropout=0.5,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "format_name"),
    [*(("kernels", name) for name in FORMATS), ("modes", "onnx"), ("modes", "openvino")],
)
def test_every_kind_of_block_in_every_format(case: str, format_name: str, tmp_path: Path) -> None:
    card = CASES[case]
    network = random_network(card)
    clips = clips_of(card, 3)
    expected = logits_of(network, clips)
    largest = np.abs(expected).max()
    assert_every_block_tells(network, clips)

    exported = written(card, network, tmp_path, format_name)
    assert exported.shape == (None, 3, *size_of(card))
    for count in (1, 3):  # any number of views
        found, text = opened(exported.files[0], clips[:count])
        assert np.abs(found - expected[:count]).max() < 1e-5 * largest
    assert typed(ModelCard, json.loads(text)) == card
    assert exported.agreement.share < 1e-5
    assert exported.num_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert set(exported.files) == set(tmp_path.iterdir())

    told = [note for note in exported.notes if note.startswith("layer1.nonlocal0 is written with its matrix")]
    assert exported.notes == tuple(told)
    assert len(told) == (0 if format_name == "torch-export" else 1)
    if format_name == "torch-export":
        operations = {str(node.target) for node in torch.export.load(exported.files[0]).graph.nodes}
        assert any("searchsorted" in name for name in operations)


@pytest.mark.slow
def test_same_padding(tmp_path: Path) -> None:
    card = inception_card()
    network = random_network(card)
    exported = written(card, network, tmp_path, "onnx", batch_size=1)
    assert exported.agreement.num_views == 3
    clips = clips_of(card, 1)
    expected = logits_of(network, clips)
    found, _ = opened(exported.files[0], clips)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_the_default_models_weights_and_a_fixed_batch(tmp_path: Path) -> None:
    network, card = load_network("default")
    assert card.fast_input is not None
    small = replace(card.fast_input, num_frames=16, short_side=64, crop=64)
    exported = written(replace(card, fast_input=small), network, tmp_path, "openvino", fast=True, batch_size=2)
    assert exported.shape == (2, 3, 16, 64, 64)
    assert exported.agreement.num_views == 4
    clips = clips_of(replace(card, input=small), 3)
    expected = logits_of(network, clips[:2])
    found, text = opened(exported.files[0], clips[:2])
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    with pytest.raises(RuntimeError, match="shape"):
        opened(exported.files[0], clips)
    told = json.loads(text)
    assert (tuple(told["labels"]), told["fast_input"]) == (card.labels, None)
    assert told["input"] == json.loads(json.dumps(asdict(small)))
    assert exported.notes == ("nonlocal_Mixed_5c adds exactly zero and is left out.",)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_window_of_the_head_answers_as_classify_does(average: str, tmp_path: Path) -> None:
    plain = replace(resnet_card({}), input=replace(SPEC, short_side=64, crop=64))
    card = replace(plain, head_window=(1, 1, 1), average=average)
    network = random_network(card)
    clips = clips_of(card, 2)
    features = network.forward_to("layer4", torch.from_numpy(clips))
    by_place = window_logits(card, network, features).detach()
    assert by_place.shape[1] > 2
    expected = np.stack([average_scores(card, logits) for logits in by_place])

    np.testing.assert_allclose(softmax(logits_of(ViewLogits(network, card), clips)), expected, atol=1e-6)
    of_whole_map = softmax(logits_of(network, clips))
    assert (np.abs(of_whole_map - expected).max() < 1e-6) == (average == "logits")
    if average == "probabilities":
        exported = written(card, network, tmp_path, "onnx")
        np.testing.assert_allclose(softmax(opened(exported.files[0], clips)[0]), expected, atol=1e-6)


def test_a_window_as_large_as_the_map_gives_plain_logits() -> None:
    whole = (2, 2, 2)  # of 8 frames of 36 pixels
    card = replace(resnet_card({}), head_window=whole)
    network = random_network(card)
    clips = clips_of(card, 2)
    assert network.forward_to("layer4", torch.from_numpy(clips)).shape[2:] == whole
    np.testing.assert_allclose(
        logits_of(ViewLogits(network, card), clips), logits_of(network, clips), rtol=1e-5, atol=1e-6
    )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = torch.from_numpy(logits).double().softmax(1).numpy()
    return probabilities
