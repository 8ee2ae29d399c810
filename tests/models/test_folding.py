"""Folded networks: the same outputs without batch norms, and without blocks that do nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from absent import needs
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from nonlocal_video.blocks import NonLocalBlock, VideoNonLocalBlock, insert_nonlocal
from nonlocal_video.models.folding import _pairs, fold_batch_norms, with_onednn
from nonlocal_video.models.inception3d import ConvUnit, InceptionI3D, InceptionI3DConfig
from nonlocal_video.models.resnet2d import NonLocalNet
from nonlocal_video.models.resnet3d import Video3DResNet, stagewise_config
from nonlocal_video.zoo.catalogue import entry

I3D, R3D, R2PLUS1D = (
    entry(name).network_config
    for name in ("i3d-nl-r50-8x8-k400-pyslowfast", "r3d-18-k400-torchvision", "r2plus1d-18-k400-torchvision")
)
BLOCK = I3D.nonlocal_blocks["layer2.1"]
BLOCKS = {"layer1.0": BLOCK, "layer2.1": BLOCK}
CLIP = (2, 3, 4, 32, 32)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "basic": (lambda: Video3DResNet.from_config(replace(stagewise_config(5), width=8)), CLIP),
    "bottleneck": (lambda: Video3DResNet.from_config(replace(I3D, nonlocal_blocks=BLOCKS, width=4)), CLIP),
    "(2+1)D": (lambda: Video3DResNet.from_config(replace(R2PLUS1D, width=4)), CLIP),
    "images": (lambda: NonLocalNet(5), (2, 3, 32, 32)),
    "inception unit": (lambda: nn.Sequential(ConvUnit(3, 6, (3, 3, 3), (2, 2, 2)), nn.Conv3d(6, 2, 1)), CLIP),
    "sequential": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4)), (2, 3, 9, 9)),
    "block": (lambda: NonLocalBlock(3, dimension=1), (2, 3, 9)),
    "block without bias": (lambda: VideoNonLocalBlock(3, nonlocal_type="dot_product", out_bias=False), CLIP),
}


def trained(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name][0]().eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_same_outputs_without_batch_norms(name: str) -> None:
    network, x = trained(name), torch.randn(NETWORKS[name][1])
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, _BatchNorm) for module in folded.modules())
    assert not any(module.training for module in folded.modules())
    with torch.inference_mode():
        expected, actual = network(x), folded(x)
    assert float((actual - expected).abs().max() / expected.abs().max()) < 1e-5
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_pairs_are_what_the_forward_does(name: str) -> None:
    """The batch norm of every pair gets the very tensor that its convolution has just made."""
    network, made, pairs = trained(name), dict[nn.Module, Tensor](), dict[nn.Module, nn.Module]()
    for parent in network.modules():
        for conv_name, bn_name in _pairs(parent):
            conv, bn = parent._modules.get(conv_name), parent._modules.get(bn_name)
            if isinstance(conv, _ConvNd) and isinstance(bn, _BatchNorm):
                pairs[bn] = conv

    def remember(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        made[conv] = output

    def compare(bn: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert inputs[0] is made.pop(pairs.pop(bn))

    for bn, conv in list(pairs.items()):
        conv.register_forward_hook(remember)
        bn.register_forward_pre_hook(compare)
    network(torch.randn(NETWORKS[name][1]))
    assert not pairs
    assert not made


@pytest.mark.parametrize("bn_layer", [True, False])
def test_blocks_that_do_nothing_are_left_out(bn_layer: bool) -> None:
    torch.manual_seed(0)
    blocks = {"layer2.0": replace(BLOCK, bn_layer=bn_layer)}
    config = replace(R3D, num_classes=5, width=4, nonlocal_blocks=blocks)
    network, x = Video3DResNet.from_config(config).eval(), torch.randn(CLIP)
    plain = Video3DResNet.from_config(replace(config, nonlocal_blocks={})).eval()
    plain.load_state_dict({key: tensor for key, tensor in network.state_dict().items() if "nonlocal" not in key})
    folded = fold_batch_norms(network)
    assert type(folded.get_submodule("layer2.nonlocal0")) is nn.Identity
    assert torch.equal(folded(x), fold_batch_norms(plain)(x))
    assert network.nonlocal_layers()
    assert type(fold_batch_norms(NonLocalBlock(4).eval())) is nn.Identity

    nn.init.constant_(network.get_submodule("layer2.nonlocal0").W.bias, 0.1)
    nn.init.ones_(network.get_submodule("layer2.nonlocal0").W.weight)
    if bn_layer:
        nn.init.ones_(network.get_submodule("layer2.nonlocal0").bn.weight)
    assert isinstance(fold_batch_norms(network).get_submodule("layer2.nonlocal0"), VideoNonLocalBlock)


def test_image_network_without_its_blocks_still_gives_maps_of_none() -> None:
    logits, maps = fold_batch_norms(NonLocalNet(5).eval())(torch.randn(1, 3, 32, 32), return_nl_maps=True)
    assert logits.shape == (1, 5)
    assert maps == {}


class Twice(nn.Module):
    """One convolution with two batch norms."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(2, 2, 1)
        self.first = nn.Sequential(conv, nn.BatchNorm2d(2))
        self.second = nn.Sequential(conv, nn.BatchNorm2d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


class BatchNormFirst(nn.Module):
    """A unit whose names alone would mislead."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x))


def test_what_cannot_be_folded_stays() -> None:
    torch.manual_seed(0)
    for network in (
        Twice(),
        BatchNormFirst(),
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)),
        nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)),
        nn.Sequential(nn.ConvTranspose2d(2, 2, 1), nn.BatchNorm2d(2)),
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)),
    ):
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                nn.init.normal_(module.weight)
        x = torch.randn(3, 2, 4, 4)
        folded = fold_batch_norms(network.eval())
        torch.testing.assert_close(folded(x), network(x))
        assert any(isinstance(module, _BatchNorm) for module in folded.modules())


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Sequential is in training mode; call eval\(\)"):
        fold_batch_norms(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)))
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).eval()
    network[1].train()
    with pytest.raises(ValueError, match="1 is in training mode"):
        fold_batch_norms(network)


@pytest.mark.parametrize("place", ["0", "1"])
def test_a_block_inserted_between_convolution_and_batch_norm_stays_there(place: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    clip = torch.randn(2, 3, 12, 12)
    for block in insert_nonlocal(network, at=[place]).values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.5)
    network.eval()
    with torch.inference_mode():
        torch.testing.assert_close(fold_batch_norms(network)(clip), network(clip))


@pytest.mark.parametrize(
    "settings", [{"padding": 1}, {"stride": (1, 2, 2)}, {"dilation": 2, "bias": False}, {"groups": 2, "kernel_size": 1}]
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_onednn_gives_pytorchs_values_and_gradients(
    settings: dict[str, Any], memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(4, 6, **{"kernel_size": 3, **settings}), nn.Conv3d(6, 2, 1))
    other = with_onednn(copy.deepcopy(network))
    clips = [torch.randn(1, 4, 5, 6, 7).contiguous(memory_format=memory_format).requires_grad_() for _ in range(2)]
    clips[1].data.copy_(clips[0].data)
    outputs = [network(clips[0]), other(clips[1])]
    torch.testing.assert_close(outputs[1], outputs[0])
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(clips[1].grad, clips[0].grad)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad)


def test_a_single_view_is_of_autocasts_precision_with_onednn_too() -> None:
    torch.manual_seed(0)
    network = nn.Conv3d(4, 6, 3)
    clip = torch.randn(1, 4, 5, 6, 7)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected, found = network(clip), with_onednn(copy.deepcopy(network))(clip)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)


@needs(torch.backends.mkldnn.is_available(), "PyTorch was built without oneDNN")
def test_no_convolution_of_one_view_is_left_to_the_slow_kernel() -> None:
    network = fold_batch_norms(InceptionI3D(InceptionI3DConfig(num_classes=5)).eval())
    clip = torch.randn(1, 3, 16, 64, 64)

    def kernels(network: nn.Module) -> set[str]:
        with torch.inference_mode(), torch.profiler.profile() as profile:
            network(clip)
        return {event.name for event in profile.events()}

    assert "aten::slow_conv3d_forward" in kernels(network)  # or there is nothing to do any more
    assert "aten::slow_conv3d_forward" not in kernels(with_onednn(network))
