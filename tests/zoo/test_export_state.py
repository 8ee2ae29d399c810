"""Networks under the names of PySlowFast and MMAction2: back and forth bit for bit, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published_tensors import random_state

from nonlocal_video.errors import ModelError
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import build_network, save_checkpoint
from nonlocal_video.zoo.catalogue import entry
from nonlocal_video.zoo.convert import convert_file
from nonlocal_video.zoo.export_state import export_state

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("thin_catalogue")]

ROUND_TRIPS = {
    "pyslowfast_I3D_NLN_8x8_R50": ("i3d-nl-r50-8x8-k400-pyslowfast", "pyslowfast"),
    "pyslowfast_SLOW_NLN_4x16_R50_dot": ("slow-nl-dot-r50-4x16-k400-pyslowfast", "pyslowfast"),
    "pyslowfast_C2D_NLN_8x8_R50": ("c2d-nl-r50-8x8-k400-pyslowfast", "pyslowfast"),
    "mmaction2_i3d_nl_dot_product_r50": ("i3d-nl-dot-r50-32x2-k400-mmaction2", "mmaction2"),
    "mmaction2_i3d_nl_gaussian_r50": ("i3d-nl-gaussian-r50-32x2-k400-mmaction2", "mmaction2"),
    "mmaction2_slowonly_nl_embedded_gaussian_4x16_r50": ("slowonly-nl-embedded-r50-4x16-k400-mmaction2", "mmaction2"),
}


@pytest.mark.parametrize("file", ROUND_TRIPS)
def test_round_trips_are_exact(file: str, tmp_path: Path) -> None:
    name, layout = ROUND_TRIPS[file]
    state = random_state(file)
    wrapper = "model_state" if layout == "pyslowfast" else "state_dict"
    torch.save({wrapper: state}, tmp_path / "theirs.pth")
    convert_file(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", name=name)
    written = export_state(tmp_path / "ours.safetensors", tmp_path / "back.pth", layout=layout)
    content = torch.load(written, weights_only=True)
    assert list(content) == [wrapper]
    back = content[wrapper]
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert back[key].dtype == tensor.dtype
        assert torch.equal(back[key], tensor)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.pth", "ours.safetensors", "theirs.pth"]


def tiny(name: str, path: Path, **changes: object) -> Path:
    card: ModelCard = entry(name).card
    card = replace(card, config={**card.config, "width": 8, **changes})
    save_checkpoint(path, build_network(card), card, dtype=torch.float32)
    return path


@pytest.mark.parametrize(
    ("name", "layout", "reason"),
    [
        ("i3d-nl-r50-8x8-k400-pyslowfast", "mmaction2", "pools in the order pool_conv instead of conv_pool"),
        ("i3d-nl-r50-8x8-k400-pyslowfast", "mmaction2", "after layer3.5 has a bias in W"),
        ("i3d-nl-dot-r50-32x2-k400-mmaction2", "pyslowfast", "has no bias in W"),
        ("i3d-nl-dot-r50-32x2-k400-mmaction2", "pyslowfast", "its stem has a stride in time"),
        ("i3d-nl-gaussian-r50-32x2-k400-mmaction2", "pyslowfast", "is of the type gaussian"),
        ("i3d-nl-r50-8x8-k400-caffe2", "pyslowfast", r"its first pooling has another padding than \(0, 1, 1\)"),
        ("r3d-18-k400-torchvision", "pyslowfast", "its residual blocks are not bottlenecks"),
        ("r2plus1d-18-k400-torchvision", "mmaction2", r"its stem is a \(2\+1\)D convolution"),
    ],
)
def test_what_the_other_project_would_compute_differently_is_refused(
    name: str, layout: str, reason: str, tmp_path: Path
) -> None:
    file = tiny(name, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=rf"cannot be written for {layout}: .*{reason}"):
        export_state(file, tmp_path / "a.pth", layout=layout)
    assert not (tmp_path / "a.pth").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"scale": None}, "has the scale None"), ({"mode": "time_only"}, "is not one over space and time")],
)
def test_blocks_that_the_other_project_does_not_have(changes: dict[str, object], reason: str, tmp_path: Path) -> None:
    blocks = entry("i3d-nl-r50-8x8-k400-pyslowfast").card.config["nonlocal_blocks"]
    changed = {place: {**block, **changes} for place, block in blocks.items()}
    file = tiny("i3d-nl-r50-8x8-k400-pyslowfast", tmp_path / "a.safetensors", nonlocal_blocks=changed)
    with pytest.raises(ModelError, match=reason):
        export_state(file, tmp_path / "a.pyth", layout="pyslowfast")


def test_other_refusals(tmp_path: Path) -> None:
    file = tiny("i3d-r50-8x8-k400-pyslowfast", tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=r"layout = 'caffe2' should be one of pyslowfast, mmaction2"):
        export_state(file, tmp_path / "a.pkl", layout="caffe2")
    with pytest.raises(ModelError, match="There is no folder"):
        export_state(file, tmp_path / "nowhere" / "a.pyth", layout="pyslowfast")
    with pytest.raises(ModelError, match="has names for 3D ResNets only"):
        export_state("default", tmp_path / "a.pyth", layout="pyslowfast")
