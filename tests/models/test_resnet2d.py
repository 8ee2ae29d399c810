"""NonLocalNet: ResNet-34 on images with non-local blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet34

from nonlocal_video.models.resnet2d import NonLocalNet

KERNELS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def test_layers_are_torchvisions() -> None:
    with torch.device("meta"):
        ours, theirs = NonLocalNet(), resnet34()
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    own = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert {name: shape for name, shape in own.items() if not name.startswith("nonlocal_blocks.")} == shapes
    assert list(ours.nonlocal_blocks) == ["stage2", "stage3", "stage4"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_new_blocks_leave_the_network_unchanged(kernel: str) -> None:
    torch.manual_seed(0)
    network = NonLocalNet(7, [1, 2, 3, 4], kernel).eval()
    plain = resnet34(num_classes=7).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("nonlocal_blocks.")})
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(images), plain(images))
        for parameter in network.nonlocal_blocks.parameters():
            nn.init.normal_(parameter)
        assert not torch.allclose(network(images), plain(images), rtol=1e-3)


def test_maps() -> None:
    torch.manual_seed(0)
    network = NonLocalNet(num_classes=4, nonlocal_stages=[2, 4]).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        logits, maps = network(images, return_nl_maps=True)
        assert torch.equal(logits, network(images))
    assert logits.shape == (2, 4)
    # Stage 2 sees 8x12 cells, pooled 4x6; stage 4 2x3, pooled 1x1.
    assert {stage: tuple(nl_map.shape) for stage, nl_map in maps.items()} == {
        "stage2": (2, 96, 24),
        "stage4": (2, 6, 1),
    }
    for nl_map in maps.values():
        torch.testing.assert_close(nl_map.sum(-1), torch.ones(nl_map.shape[:2]))


def test_smallest_images() -> None:
    """Stage 4 of a 32x32 image has a single cell, which cannot be pooled."""
    logits, maps = NonLocalNet(4).eval()(torch.randn(1, 3, 32, 32), return_nl_maps=True)
    assert logits.isfinite().all()
    assert maps["stage4"].shape == (1, 1, 1)


def test_model_complexity() -> None:
    with torch.device("meta"):
        network = NonLocalNet(nonlocal_stages=[4])
    complexity = network.get_model_complexity()
    block = 4 * 512 * 256 + 3 * 256 + 512 + 2 * 512
    assert complexity["backbone_parameters"] == 21_797_672  # ResNet-34
    assert complexity["nonlocal_parameters"] == block
    assert complexity["total_parameters"] == 21_797_672 + block
    assert complexity["nonlocal_ratio"] == pytest.approx(block / (21_797_672 + block))
    assert complexity["size_bytes"] > 4 * complexity["total_parameters"]


def test_no_blocks_and_bad_stages() -> None:
    with torch.device("meta"):
        assert NonLocalNet(nonlocal_stages=[]).get_model_complexity()["nonlocal_parameters"] == 0
        with pytest.raises(ValueError, match=r"nonlocal_stages = \[0, 2\] has \[0\]; the stages are 1, 2, 3 and 4"):
            NonLocalNet(nonlocal_stages=[0, 2])
