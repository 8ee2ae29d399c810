"""Grad-CAM against the grad-cam library."""

from __future__ import annotations

import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from random_networks import resnet_card
from torch import nn

from nonlocal_video.attention.class_evidence import grad_cam
from nonlocal_video.models.checkpoint import build_network


def small_network() -> nn.Module:
    """Convolutions, an in-place ReLU behind the layer that is asked about, and a head that is not linear."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(3, 6, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv3d(6, 8, 3, padding=1),
        nn.Tanh(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
        nn.GELU(),
        nn.Linear(5, 4),
    ).eval()


def library_map(network: nn.Module, clip: torch.Tensor, layer: str, class_index: int) -> torch.Tensor:
    """Library's map on the layer's own grid, before it is scaled to the input."""
    target = network.get_submodule(layer)
    with GradCAM(model=network, target_layers=[target]) as cam:
        targets = [ClassifierOutputTarget(class_index)]
        cam.forward(clip, targets)
        kept = cam.activations_and_grads
        weighted = cam.get_cam_image(clip, target, targets, kept.activations[0].numpy(), kept.gradients[0].numpy())
    return torch.from_numpy(weighted[0]).relu()


@pytest.mark.parametrize("layer", ["2", "3"])
@pytest.mark.parametrize("class_index", [0, 3])
def test_the_map_is_the_librarys(layer: str, class_index: int) -> None:
    network, clip = small_network(), torch.randn(1, 3, 6, 16, 20)
    expected = library_map(network, clip, layer, class_index)
    found = grad_cam(network, clip, layer, class_index)
    assert found.shape == (3, 8, 10)
    torch.testing.assert_close(found, expected)
    assert found.max() > 0
    assert not found.requires_grad


def test_the_map_of_a_layer_before_an_in_place_relu_has_the_features_before_it() -> None:
    network, clip = small_network(), torch.randn(1, 3, 6, 16, 16)
    kept = network[0](clip).detach().requires_grad_(True)
    network[1:](kept.clone())[0, 1].backward()
    assert kept.grad is not None
    expected = (kept.grad.mean(dim=(2, 3, 4), keepdim=True) * kept).sum(dim=1)[0].relu()
    torch.testing.assert_close(grad_cam(network, clip, "0", 1), expected)


def test_a_network_of_this_project_is_left_as_it_was() -> None:
    card = resnet_card({})
    network = build_network(card).eval()
    next(network.parameters()).requires_grad_(False)
    before = [parameter.requires_grad for parameter in network.parameters()]
    spec = card.input
    clip = torch.randn(1, 3, spec.num_frames, spec.crop, spec.crop)
    with torch.inference_mode():
        found = grad_cam(network, clip, "layer3", 0)
    torch.testing.assert_close(found, library_map(network, clip, "layer3", 0))
    assert [parameter.requires_grad for parameter in network.parameters()] == before
    assert not any(module._forward_hooks for module in network.modules())
