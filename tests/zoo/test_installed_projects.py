"""torchvision's and pytorchvideo's own networks against their checkpoints converted."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.zoo.convert import convert_file, recognise

pytestmark = pytest.mark.slow

CLASSES = 5
LABELS = [f"action {index}" for index in range(CLASSES)]


def randomised(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def assert_same_logits(theirs: nn.Module, file: Path, name: str, clip: Tensor) -> None:
    output = file.with_suffix(".safetensors")
    converted = convert_file(file, output, name=name, labels=LABELS)
    ours, card = load_checkpoint(output)
    assert card.labels == tuple(LABELS)
    assert converted.tensors_used == len(theirs.state_dict())
    with torch.inference_mode():
        expected, actual = theirs(clip), ours(clip)
    assert float((actual - expected).abs().max() / expected.abs().max()) < 1e-4
    output.unlink()
    file.unlink()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("r3d_18", "r3d-18-k400-torchvision"),
        ("mc3_18", "mc3-18-k400-torchvision"),
        ("r2plus1d_18", "r2plus1d-18-k400-torchvision"),
    ],
)
def test_torchvision(model: str, name: str, tmp_path: Path) -> None:
    video = import_module("torchvision.models.video")
    theirs = randomised(getattr(video, model)(num_classes=CLASSES))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    assert_same_logits(theirs, tmp_path / "weights.pth", name, torch.randn(1, 3, 5, 28, 28))


@pytest.mark.parametrize(
    ("model", "name", "prefix"),
    [
        ("slow_r50", "slow-r50-8x8-k400-pytorchvideo", ""),
        ("i3d_r50", "i3d-r50-8x8-k400-pytorchvideo", "model."),  # as PySlowFast saves it
        ("c2d_r50", "c2d-r50-8x8-k400-pytorchvideo", ""),
    ],
)
def test_pytorchvideo(model: str, name: str, prefix: str, tmp_path: Path) -> None:
    hub = import_module("pytorchvideo.models.hub")
    theirs = randomised(getattr(hub, model)(pretrained=False, model_num_class=CLASSES))
    theirs.blocks[-1].pool = nn.AdaptiveAvgPool3d(1)  # its window fits 224x224 only; global at any size, as ours
    state = {prefix + key: tensor for key, tensor in theirs.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "weights.pyth")
    assert_same_logits(theirs, tmp_path / "weights.pyth", name, torch.randn(1, 3, 4, 40, 48))


def test_a_published_file_is_recognised_without_a_name(tmp_path: Path) -> None:
    video = import_module("torchvision.models.video")
    theirs = randomised(video.mc3_18(num_classes=400))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    assert recognise(tmp_path / "weights.pth") == ["mc3-18-k400-torchvision"]
    converted = convert_file(tmp_path / "weights.pth", tmp_path / "weights.safetensors")
    assert converted.name == "mc3-18-k400-torchvision"
    ours, card = load_checkpoint(tmp_path / "weights.safetensors")
    assert card.labels[:2] == ("abseiling", "air drumming")
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(clip), theirs(clip), rtol=1e-4, atol=1e-4)
