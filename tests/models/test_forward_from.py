"""A network in two halves: what is before a layer and what comes after it."""

from __future__ import annotations

import pytest
import torch

from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig
from nonlocal_video.models.resnet3d import MaxPool, ResNet3DConfig, Video3DResNet

BLOCK = NonLocalConfig(inter_channels=4)


@pytest.fixture(scope="module")
def resnet() -> Video3DResNet:
    config = ResNet3DConfig(
        5,
        blocks_per_stage=(1, 1, 1, 1),
        width=4,
        stem_pool=MaxPool((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        temporal_pool=2,
        nonlocal_blocks={"layer3.0": BLOCK, "layer4.0": BLOCK},
    )
    return randomised(Video3DResNet.from_config(config))


@pytest.fixture(scope="module")
def inception() -> InceptionI3D:
    blocks = {"Mixed_4f": BLOCK, "MaxPool3d_5a_2x2": BLOCK, "Mixed_5c": BLOCK}
    return randomised(InceptionI3D(InceptionI3DConfig(5, blocks)))


def randomised(network):
    """Blocks that change something and statistics that are not 0 and 1, in eval mode."""
    torch.manual_seed(3)
    with torch.no_grad():
        for block in network.nonlocal_layers().values():
            block.bn.weight.normal_()
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    return network.eval()


def test_resnet_halves_are_the_whole(resnet: Video3DResNet) -> None:
    x = torch.randn(2, 3, 8, 48, 48)
    whole = resnet(x)
    for layer in ("layer3", "layer4"):
        kept: list[torch.Tensor] = []
        handle = resnet.get_submodule(layer).register_forward_hook(lambda *call, kept=kept: kept.append(call[2]))
        features = resnet.forward_to(layer, x)
        handle.remove()
        assert torch.equal(features, kept[0])
        assert torch.equal(resnet.forward_from(layer, features), whole)
    assert torch.equal(resnet.head(resnet.forward_to(resnet.feature_layer, x)), whole)


def test_resnet_layers_after_any_layer_run_in_this_order(resnet: Video3DResNet) -> None:
    assert resnet.layers_after("layer3") == ("layer4",)
    assert resnet.layers_after("layer4") == ()
    assert resnet.layers_after(resnet.last_stage_input) == ("layer4",)
    names = ("stem", *resnet.layers_after("stem"))
    ran: list[str] = []
    handles = [
        resnet.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name)) for name in names
    ]
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        whole = resnet(x)
        assert torch.equal(resnet.forward_from("stem", resnet.stem(x)), whole)
    for handle in handles:
        handle.remove()
    assert ran[: len(names)] == list(names)


def test_inception_halves_are_the_whole(inception: InceptionI3D) -> None:
    x = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        whole = inception(x)
        for layer in ("MaxPool3d_3a_3x3", inception.last_stage_input, inception.feature_layer):
            features = inception.forward_to(layer, x)
            assert torch.equal(features, inception.extract_features(x, [layer])[layer])
            assert torch.equal(inception.forward_from(layer, features), whole)


def test_inception_last_stage_begins_after_its_pool(inception: InceptionI3D) -> None:
    after = inception.layers_after(inception.last_stage_input)
    assert after == ("nonlocal_MaxPool3d_5a_2x2", "Mixed_5b", "Mixed_5c", "nonlocal_Mixed_5c")
    assert inception.feature_layer == "nonlocal_Mixed_5c"
    assert inception.layers_after(inception.feature_layer) == ()
