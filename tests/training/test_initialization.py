"""Start of a run: every tensor of the trunk, a new head, and a card that claims nothing of the parent's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from engine_parts import LABELS, VIEW, tiny_card, tiny_network, wake_blocks
from safetensors.torch import load_file, save_file

from nonlocal_video.errors import ModelError, UsageError
from nonlocal_video.models.card import Accuracy, ModelCard
from nonlocal_video.models.checkpoint import CARD_KEY, save_checkpoint
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.training.initialization import NewModel, initialize, read_new_model
from nonlocal_video.zoo.catalogue import build, entries

FAST = replace(VIEW, num_frames=2)


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return replace(
        tiny_card(blocks=True),
        name="parent",
        fast_input=FAST,
        explain_layer="layer3.nonlocal0",
        published=Accuracy(50.0, 80.0, "1x1"),
        licence="CC-BY-4.0",
        notes=("Says something of the parent.",),
    )


@pytest.fixture(scope="module")
def weights(card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "parent.safetensors"
    save_checkpoint(path, wake_blocks(tiny_network(card)), card, dtype=torch.float32)
    return path


def test_the_trunk_is_the_files_and_the_head_is_new(weights: Path) -> None:
    start = initialize(weights, ("a", "b", "c"), name="mine", seed=4)
    stored, state = load_file(weights), start.network.state_dict()
    assert set(state) == set(stored)
    head = {"fc.weight", "fc.bias"}
    for name in set(stored) - head:
        assert torch.equal(state[name], stored[name]), name
    assert state["fc.weight"].shape == (3, 64)
    assert not torch.equal(state["fc.weight"][:2], stored["fc.weight"])
    assert start.loaded == (
        f"All {len(stored) - 2} tensors of the trunk of 'parent' were loaded; the head for 3 classes is new."
    )
    assert start.has_weights
    again, other = (initialize(weights, ("a", "b", "c"), name="mine", seed=seed) for seed in (4, 5))
    assert torch.equal(again.network.fc.weight, start.network.fc.weight)
    assert not torch.equal(other.network.fc.weight, start.network.fc.weight)


def test_the_callers_random_numbers_stay_where_they_were(weights: Path) -> None:
    before = torch.random.get_rng_state()
    initialize(weights, ("a", "b", "c"), name="mine", seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_with_the_same_classes_the_head_stays(weights: Path) -> None:
    start = initialize(weights, LABELS, name="mine")
    stored = load_file(weights)
    for name, tensor in start.network.state_dict().items():
        assert torch.equal(tensor, stored[name]), name
    assert "including the head" in start.loaded
    swapped = initialize(weights, LABELS[::-1], name="mine")
    assert not torch.equal(swapped.network.fc.weight, stored["fc.weight"])


def test_the_card_says_what_the_new_model_is(weights: Path, card: ModelCard) -> None:
    start = initialize(weights, ("a", "b", "c"), name="mine")
    assert start.parent == card
    assert start.card == replace(
        card,
        name="mine",
        config={**card.config, "num_classes": 3},
        labels=("a", "b", "c"),
        published=None,
        source="trained from parent",
        notes=(),
    )
    fast = initialize(weights, ("a", "b", "c"), name="mine", fast=True).card
    assert (fast.input, fast.fast_input) == (FAST, None)
    with pytest.raises(UsageError, match="has no fast view"):
        initialize(save_without_fast(weights, card), LABELS, name="mine", fast=True)


def save_without_fast(weights: Path, card: ModelCard) -> Path:
    path = weights.with_name("slow.safetensors")
    save_checkpoint(path, tiny_network(card), replace(card, fast_input=None))
    return path


def test_new_weights_take_the_network_alone(weights: Path) -> None:
    start = initialize(weights, ("a", "b", "c"), name="mine", new_weights=True)
    assert not start.has_weights
    assert start.parent is None
    assert not torch.equal(start.network.stem.conv.weight, load_file(weights)["stem.conv.weight"])
    assert (start.card.licence, start.card.source) == ("", "trained from new weights")
    assert "no weights were loaded" in start.loaded


def test_a_catalogue_row_without_weights_is_newly_initialised() -> None:
    row = next(entry for entry in entries().values() if entry.download is None)
    start = initialize(row.name, ("a", "b"), name="mine")
    assert isinstance(start.network, Video3DResNet)
    assert start.network.fc.out_features == 2
    assert start.network.nonlocal_layers().keys() == build(row.name).nonlocal_layers().keys()
    assert (start.has_weights, start.parent, start.card.input) == (False, None, row.card.input)
    assert row.name in start.loaded


def test_a_description_in_yaml(weights: Path, card: ModelCard) -> None:
    text = yaml.safe_dump(
        {
            "name": "slim",
            "architecture": "resnet3d",
            "config": {"width": 4, "blocks_per_stage": [1, 1, 1, 1]},
            "input": {
                "num_frames": 4, "frames_per_second": 5, "short_side": 40, "crop": 32,
                "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
            },
        }
    )  # fmt: skip
    model = read_new_model(yaml.safe_load(text), "slim.yaml")
    assert model == NewModel("slim", "resnet3d", VIEW, {"width": 4, "blocks_per_stage": [1, 1, 1, 1]})
    start = initialize(model, LABELS, name="mine")
    assert isinstance(start.network, Video3DResNet)
    assert (start.network.config.width, start.network.config.num_classes, start.has_weights) == (4, 2, False)
    assert start.card.labels == LABELS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"num_classes": 3}}, "num_classes, which the classes of the run determine"),
        ({"layers": 3}, r"this version does not know \['layers'\]"),
        ({"input": None}, "should have name, architecture, config and input; input"),
        ({"input": {"num_frame": 3}}, r"this version does not know \['input.num_frame'\]"),
    ],
)
def test_a_description_that_is_none_is_refused(change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        "name": "slim",
        "architecture": "resnet3d",
        "config": {"width": 4},
        "input": {
            "num_frames": 4, "frames_per_second": 5, "short_side": 40, "crop": 32, "mean": [0, 0, 0], "std": [1, 1, 1],
        },
    }  # fmt: skip
    if isinstance(change.get("input"), dict):
        change = {"input": {**values["input"], **change["input"]}}
    with pytest.raises(UsageError, match=message):
        read_new_model({**values, **change}, "slim.yaml")


def test_a_description_of_no_network_is_refused() -> None:
    with pytest.raises(ModelError, match=r"does not describe a resnet3d: .*wide"):
        initialize(NewModel("slim", "resnet3d", VIEW, {"wide": 4}), LABELS, name="mine")
    with pytest.raises(ModelError, match="has the architecture 'resnet5d'"):
        initialize(NewModel("slim", "resnet5d", VIEW, {}), LABELS, name="mine")
    with pytest.raises(UsageError, match=r"The model in slim\.yaml should have name"):
        read_new_model(["resnet3d"], "slim.yaml")


def test_weights_that_are_not_all_there_are_refused(weights: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(weights)
    del tensors["layer4.0.conv1.conv.weight"]
    save_file(tensors, tmp_path / "less.safetensors", metadata={CARD_KEY: metadata[CARD_KEY]})
    with pytest.raises(ModelError, match=r"layer4\.0\.conv1\.conv\.weight is missing"):
        initialize(tmp_path / "less.safetensors", ("a", "b", "c"), name="mine")
    with pytest.raises(ModelError, match="no model or weights file"):
        initialize("nonexistent", LABELS, name="mine")
