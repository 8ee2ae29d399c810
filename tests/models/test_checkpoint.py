"""Weights files: what goes in comes out, and whatever does not fit is named."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.errors import ModelError
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.checkpoint import CARD_KEY, build_network, load_checkpoint, read_card, save_checkpoint
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig
from nonlocal_video.models.resnet3d import MaxPool, ResNet3DConfig, Video3DResNet

INPUT = InputSpec(
    num_frames=8, frames_per_second=12.5, short_side=64, crop=56, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3)
)
CONFIG = ResNet3DConfig(
    num_classes=3,
    blocks_per_stage=(1, 1, 2, 1),
    width=4,
    stem_kernel=(5, 7, 7),
    stem_pool=MaxPool((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    temporal_kernels=((3,), (3, 1), (1, 3), (1,)),
    nonlocal_blocks={"layer3.0": NonLocalConfig(2, scale="inverse_sqrt"), "layer3.1": NonLocalConfig(scale=0.5)},
)
CARD = ModelCard(
    name="small",
    architecture="resnet3d",
    config=asdict(CONFIG),
    input=INPUT,
    labels=("jumping", "running in place", "tai chi 太極"),
    fast_input=replace(INPUT, num_frames=4),
    explain_layer="layer3.nonlocal0",
    licence="Apache-2.0",
    source="a test",
    notes=("One.", "Two."),
)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    network = build_network(CARD)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 1e-9, 1e6)  # wider than float16
    return network


@pytest.fixture
def saved(network: nn.Module, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "small.safetensors", network, CARD, dtype=torch.float32)
    return tmp_path / "small.safetensors"


def rewrite(path: Path, *, card: object = None, **changes: torch.Tensor | None) -> None:
    """Changes tensors (None leaves one out) or the card of a file; a card of "" leaves it out."""
    tensors = load_file(path) | changes
    text = json.dumps(asdict(read_card(path))) if card is None else card if isinstance(card, str) else json.dumps(card)
    metadata = {CARD_KEY: text} if text else None
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path, metadata=metadata)


# --- round trips ---------------------------------------------------------------------------------------------------


def test_float32_comes_back_bit_for_bit_with_its_card(network: nn.Module, saved: Path) -> None:
    loaded, card = load_checkpoint(saved)
    assert card == replace(CARD, config=json.loads(json.dumps(CARD.config)))
    assert read_card(saved) == card
    assert not loaded.training
    assert list(loaded.state_dict()) == list(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert loaded.state_dict()[name].dtype == tensor.dtype, name
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_float16_rounds_kernels_only_and_loads_as_float32(network: nn.Module, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "half.safetensors", network, CARD)
    stored = load_file(tmp_path / "half.safetensors")
    loaded = load_checkpoint(tmp_path / "half.safetensors")[0].state_dict()
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:
            assert stored[name].dtype == torch.float16
            assert torch.equal(loaded[name], tensor.half().float())
            assert loaded[name].dtype == torch.float32
        else:
            assert stored[name].dtype == tensor.dtype, name
            assert torch.equal(loaded[name], tensor), name


def test_the_same_network_gives_the_same_bytes(network: nn.Module, saved: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "again.safetensors", network, CARD, dtype=torch.float32)
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_a_configuration_comes_back_from_json_with_its_types(saved: Path) -> None:
    loaded, card = load_checkpoint(saved)
    assert isinstance(card.config["temporal_kernels"], list)
    assert isinstance(loaded, Video3DResNet)
    assert loaded.config == CONFIG


def test_inception_comes_back_from_json_with_its_blocks(tmp_path: Path) -> None:
    config = InceptionI3DConfig(num_classes=3, nonlocal_blocks={"Mixed_4f": NonLocalConfig(8, scale=0.25)})
    card = replace(CARD, architecture="inception_i3d", config=asdict(config), explain_layer="nonlocal_Mixed_4f")
    network = InceptionI3D(config)
    save_checkpoint(tmp_path / "i3d.safetensors", network, card)
    loaded, _ = load_checkpoint(tmp_path / "i3d.safetensors")
    assert isinstance(loaded, InceptionI3D)
    assert loaded.config == config
    assert list(loaded.nonlocal_layers()) == ["nonlocal_Mixed_4f"]


def test_loading_leaves_the_callers_random_numbers_alone(saved: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_checkpoint(saved)
    assert torch.equal(torch.rand(3), expected)


# --- saving safely -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_the_file_has_the_usual_mode(network: nn.Module, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_checkpoint(tmp_path / "a.safetensors", network, CARD)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o644


def test_a_failed_save_leaves_the_old_file_and_nothing_else(network, saved: Path, monkeypatch) -> None:
    before = saved.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk gone")))
    with pytest.raises(OSError, match="disk gone"):
        save_checkpoint(saved, network, replace(CARD, name="new"))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_numbers_that_cannot_be_stored_are_named(network: nn.Module, tmp_path: Path, value: float) -> None:
    with torch.no_grad():
        network.get_parameter("fc.weight")[0, 0] = value
    with pytest.raises(ModelError, match=r"fc\.weight has values that are not finite as torch\.float16"):
        save_checkpoint(tmp_path / "a.safetensors", network, CARD)
    assert list(tmp_path.iterdir()) == []


def test_other_dtypes_are_refused(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype = torch\.bfloat16 should be"):
        save_checkpoint(tmp_path / "a.safetensors", network, CARD, dtype=torch.bfloat16)


# --- files that are not ours ---------------------------------------------------------------------------------------


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ModelError, match=f"Weights file {path} not found"):
            load_checkpoint(path)


@pytest.mark.parametrize("content", [b"\x00", b"\xff" * 64, b"\x80\x04}."])
def test_a_file_of_another_kind_is_explained(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.safetensors cannot be read as safetensors .*\.pt.* converted first"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_a_truncated_file_is_explained(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        load_checkpoint(saved)


def test_safetensors_without_a_card_are_explained(saved: Path) -> None:
    rewrite(saved, card="")
    with pytest.raises(ModelError, match="no model card inside, so its labels and its input are unknown"):
        load_checkpoint(saved)


CARD_JSON = json.loads(json.dumps(asdict(CARD)))


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", "The model card inside .* cannot be used"),
        ([], "cannot be used: ModelCard: "),
        (CARD_JSON | {"labels": ["a", "a", "b"]}, "same label twice"),
        ({k: v for k, v in CARD_JSON.items() if k != "input"}, r"input: "),
        (CARD_JSON | {"input": CARD_JSON["input"] | {"crop": 0}}, r"input: .*crop = 0 should be above 0"),
        (CARD_JSON | {"calibration": 1}, r"does not know \['calibration'\]"),
        (CARD_JSON | {"input": CARD_JSON["input"] | {"gamma": 1}}, r"does not know \['input\.gamma'\]"),
        (
            CARD_JSON | {"architecture": "vit"},
            r"architecture 'vit'; this version knows \['inception_i3d', 'resnet3d', 'torchvision', 'transformers'\]",
        ),
        (CARD_JSON | {"labels": ["a", "b"]}, "has 2 labels for a network with 3 classes"),
        (CARD_JSON | {"config": CARD_JSON["config"] | {"width": "wide"}}, r"does not describe a resnet3d: width: "),
        (CARD_JSON | {"config": CARD_JSON["config"] | {"depth": 50}}, r"does not know \['depth'\]"),
        (
            CARD_JSON | {"config": CARD_JSON["config"] | {"nonlocal_blocks": {"layer3.0": {"heads": 8}}}},
            r"does not know \['nonlocal_blocks\.layer3\.0\.heads'\]",
        ),
        (
            CARD_JSON | {"config": CARD_JSON["config"] | {"nonlocal_blocks": {"layer9.0": {}}}},
            r"nonlocal_blocks names \['layer9\.0'\]",
        ),
    ],
)
def test_a_card_that_cannot_be_used_is_explained(saved: Path, card: object, message: str) -> None:
    rewrite(saved, card=card)
    with pytest.raises(ModelError, match=message):
        load_checkpoint(saved)


def test_tensors_that_do_not_fit_are_listed(saved: Path) -> None:
    stranger, misshapen = torch.zeros(1), torch.zeros(2, 5)
    rewrite(saved, **{"fc.bias": None, "fc.weight": misshapen, "fc.scale": stranger})
    with pytest.raises(ModelError) as caught:
        load_checkpoint(saved)
    message = str(caught.value)
    assert "small.safetensors do not fit the resnet3d of its card" in message
    for part in ("fc.bias is missing", "fc.scale is not part of the network", "fc.weight is (2, 5) instead of (3, 32)"):
        assert part in message


def test_a_long_list_of_problems_is_cut(saved: Path) -> None:
    names = [name for name in load_file(saved) if name.startswith("layer3")]
    rewrite(saved, **dict.fromkeys(names))
    with pytest.raises(ModelError, match=rf"is missing; and {len(names) - 10} more\."):
        load_checkpoint(saved)
