"""Video3DResNet: the tutorial's network, every published one, and what they give."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from nonlocal_video.blocks import NonLocalConfig, VideoNonLocalBlock
from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet, stagewise_config
from nonlocal_video.zoo.catalogue import entry


def published(name: str, **changes: object) -> ResNet3DConfig:
    """A network of the catalogue."""
    return replace(entry(name).network_config, **changes)


I3D_NL = published("i3d-nl-r50-8x8-k400-pyslowfast")
SLOW_NL_DOT = published("slow-nl-dot-r50-4x16-k400-pyslowfast")
MMACTION2_GAUSSIAN = published("i3d-nl-gaussian-r50-32x2-k400-mmaction2")
SLOWONLY = published("slowonly-nl-embedded-r50-4x16-k400-mmaction2")
CAFFE2 = {sampling: published(f"i3d-nl-r50-{sampling}-k400-caffe2") for sampling in ("32x2", "32x4", "128x1")}

# A file of published weights -> its network and the number of parameters that its publishers or papers state.
PUBLISHED: dict[str, tuple[ResNet3DConfig, int]] = {
    "pyslowfast_I3D_NLN_8x8_R50": (I3D_NL, 35_401_936),
    "pyslowfast_I3D_8x8_R50": (published("i3d-r50-8x8-k400-pyslowfast"), 28_043_472),
    "pyslowfast_SLOW_8x8_R50": (published("slow-r50-8x8-k400-pyslowfast"), 32_454_096),
    "pyslowfast_SLOW_NLN_4x16_R50_dot": (SLOW_NL_DOT, 39_812_560),
    "pyslowfast_C2D_NLN_8x8_R50": (published("c2d-nl-r50-8x8-k400-pyslowfast"), 31_686_096),
    "pytorchvideo_c2d_r50": (published("c2d-r50-8x8-k400-pytorchvideo"), 24_327_632),
    "pytorchvideo_i3d_r50": (published("i3d-r50-8x8-k400-pytorchvideo"), 28_043_472),
    "pytorchvideo_slow_r50": (published("slow-r50-8x8-k400-pytorchvideo"), 32_454_096),
    "videononlocalnet_i3d_nl_32x2_r50": (CAFFE2["32x2"], 35_401_936),
    "mmaction2_i3d_r50": (published("i3d-r50-32x2-k400-mmaction2"), 28_043_472),
    "mmaction2_i3d_nl_dot_product_r50": (published("i3d-nl-dot-r50-32x2-k400-mmaction2"), 35_397_840),
    "mmaction2_i3d_nl_embedded_gaussian_r50": (published("i3d-nl-embedded-r50-32x2-k400-mmaction2"), 35_397_840),
    "mmaction2_i3d_nl_gaussian_r50": (MMACTION2_GAUSSIAN, 31_723_728),
    "mmaction2_slowonly_nl_embedded_gaussian_4x16_r50": (SLOWONLY, 39_808_464),
    "torchvision_r3d_18": (published("r3d-18-k400-torchvision"), 33_371_472),
    "torchvision_mc3_18": (published("mc3-18-k400-torchvision"), 11_695_440),
    "torchvision_r2plus1d_18": (published("r2plus1d-18-k400-torchvision"), 31_505_325),
    "kenshohara_r3d34_K700": (published("r3d-34-k700-kenshohara"), 63_872_636),
    "kenshohara_r3d50_K700": (published("r3d-50-k700-kenshohara"), 47_633_276),
}
SHAPES = json.loads((Path(__file__).parent / "data" / "published_resnet3d_shapes.json").read_text())


def on_meta(config: ResNet3DConfig) -> Video3DResNet:
    with torch.device("meta"):
        return Video3DResNet.from_config(config)


def tiny(config: ResNet3DConfig, **changes: object) -> Video3DResNet:
    torch.manual_seed(0)
    return Video3DResNet.from_config(replace(config, width=4, num_classes=5, **changes))


def output_sizes(config: ResNet3DConfig, num_frames: int) -> dict[str, tuple[int, ...]]:
    clip = torch.empty(1, 3, num_frames, 224, 224, device="meta")
    features = on_meta(config).eval().extract_features(clip, ["stage1", "stage2", "stage3", "stage4"])
    return {stage: tuple(feature.shape[1:]) for stage, feature in features.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_and_parameters_are_the_published_ones(name: str) -> None:
    config, num_parameters = PUBLISHED[name]
    network = on_meta(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters
    shapes = Counter("x".join(map(str, tensor.shape)) or "scalar" for tensor in network.state_dict().values())
    assert shapes == SHAPES[name]


def test_every_published_file_has_its_network() -> None:
    assert set(PUBLISHED) == set(SHAPES)


# ---- The tutorial's network


def test_tutorial_network() -> None:
    network = on_meta(stagewise_config())
    assert isinstance(network.stem.conv, nn.Conv3d)
    assert (network.stem.conv.kernel_size, network.stem.conv.stride) == ((3, 7, 7), (1, 2, 2))
    assert network.stem.conv.out_channels == 64
    assert (network.stem_pool.kernel_size, network.stem_pool.stride) == ((1, 3, 3), (1, 2, 2))
    assert list(network.nonlocal_layers()) == ["layer3.nonlocal5", "layer4.nonlocal2"]
    assert network.fc.out_features == 400
    assert output_sizes(stagewise_config(), 16) == {
        "stage1": (64, 16, 56, 56),
        "stage2": (128, 16, 28, 28),
        "stage3": (256, 8, 14, 14),
        "stage4": (512, 4, 7, 7),
    }


def test_tutorial_arguments() -> None:
    with torch.device("meta"):
        network = Video3DResNet(num_classes=7, nonlocal_stages=[1, 2], nonlocal_mode="time_only")
        assert not Video3DResNet(nonlocal_stages=[]).nonlocal_layers()
    assert network.fc.out_features == 7
    blocks = network.nonlocal_layers()
    assert list(blocks) == ["layer1.nonlocal2", "layer2.nonlocal3"]
    assert {block.config.mode for block in blocks.values()} == {"time_only"}
    assert network.config == stagewise_config(7, [1, 2], "time_only")


@pytest.mark.parametrize("mode", ["spacetime", "space_only", "time_only"])
def test_tutorial_network_runs(mode: str) -> None:
    network = tiny(stagewise_config(5, [1, 2, 3, 4], mode))
    logits = network(torch.randn(2, 3, 4, 32, 32))  # stage 4 sees 1x1 cells
    assert logits.shape == (2, 5)
    logits.sum().backward()


# ---- The published networks


@pytest.mark.parametrize(
    ("config", "num_frames", "sizes"),
    [
        # Without padding in the first pooling stage 1 is 55x55; from stage 2 on nothing shows.
        (CAFFE2["32x2"], 32, {"stage1": (256, 8, 55, 55), "stage2": (512, 4, 28, 28)}),
        (published("c2d-nl-r50-8x8-k400-caffe2"), 8, {"stage1": (256, 8, 55, 55), "stage2": (512, 4, 28, 28)}),
        (CAFFE2["32x4"], 32, {"stage1": (256, 32, 55, 55), "stage3": (1024, 16, 14, 14)}),
        (CAFFE2["128x1"], 128, {"stage1": (256, 32, 55, 55), "stage4": (2048, 16, 7, 7)}),
        (MMACTION2_GAUSSIAN, 32, {"stage1": (256, 8, 56, 56), "stage4": (2048, 4, 7, 7)}),
        (I3D_NL, 8, {"stage1": (256, 8, 56, 56), "stage4": (2048, 4, 7, 7)}),
        (published("c2d-r50-8x8-k400-pyslowfast"), 8, {"stage2": (512, 8, 28, 28), "stage4": (2048, 8, 7, 7)}),
        (SLOWONLY, 4, {"stage2": (512, 4, 28, 28), "stage4": (2048, 4, 7, 7)}),
        (published("r3d-34-k700-kenshohara"), 16, {"stage1": (64, 8, 56, 56), "stage4": (512, 1, 7, 7)}),
        (published("mc3-18-k400-torchvision"), 16, {"stage1": (64, 16, 112, 112), "stage4": (512, 16, 14, 14)}),
    ],
)
def test_feature_sizes(config: ResNet3DConfig, num_frames: int, sizes: dict[str, tuple[int, ...]]) -> None:
    assert output_sizes(config, num_frames).items() >= sizes.items()


def test_long_clips_see_groups_of_four_frames_in_stage_2_only() -> None:
    blocks = on_meta(CAFFE2["32x4"]).nonlocal_layers()
    groups = {name: block.config.temporal_groups for name, block in blocks.items()}
    assert groups == {
        "layer2.nonlocal1": 4,
        "layer2.nonlocal3": 4,
        "layer3.nonlocal1": None,
        "layer3.nonlocal3": None,
        "layer3.nonlocal5": None,
    }
    assert [block.scale for block in blocks.values()] == [256**-0.5] * 2 + [512**-0.5] * 3
    assert not on_meta(published("i3d-r50-32x4-k400-caffe2")).nonlocal_layers()


def test_101_layers_with_the_papers_placement() -> None:
    network = on_meta(published("i3d-nl-r101-128x1-k400-caffe2"))
    assert len(network.layer3) == 23 + 3
    assert [network.layer3[i].conv1.conv.kernel_size[0] for i in range(6)] == [3, 1, 3, 1, 3, 1]


# ---- Non-local blocks in the network


NETWORKS = {
    "tutorial": stagewise_config(5, [1, 2, 3, 4]),
    "time_only": stagewise_config(5, [2, 3], "time_only"),
    "i3d": I3D_NL,
    "slow dot": SLOW_NL_DOT,
    "mmaction2 gaussian": MMACTION2_GAUSSIAN,
    "no batch norm": replace(stagewise_config(), nonlocal_blocks={"layer1.0": NonLocalConfig(bn_layer=False)}),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [False, True])
def test_new_blocks_leave_the_network_unchanged(name: str, training: bool) -> None:
    config = replace(NETWORKS[name], dropout=0.0)
    network = tiny(config).train(training)
    plain = tiny(config, nonlocal_blocks={}).train(training)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if "nonlocal" not in k})
    clip = torch.randn(2, 3, 8, 32, 32)
    assert torch.equal(network(clip), plain(clip))
    assert all(block.is_identity for block in network.nonlocal_layers().values())

    before = network(clip)
    for block in network.nonlocal_layers().values():
        for parameter in block.parameters():
            nn.init.normal_(parameter)
    assert not torch.allclose(network(clip), before, rtol=1e-3)


def test_reset_makes_a_trained_network_new() -> None:
    network = tiny(stagewise_config())
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    network.reset_parameters()
    assert all(block.is_identity for block in network.nonlocal_layers().values())


def test_gradients_reach_every_parameter_after_one_step() -> None:
    network = tiny(stagewise_config(5, [2, 3]))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    clip = torch.randn(2, 3, 4, 48, 48)
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(clip), torch.tensor([0, 1])).backward()
        optimiser.step()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not without


def test_blocks_act_where_they_are_placed() -> None:
    network = tiny(I3D_NL)
    assert [name for name, _ in network.layer2.named_children()] == ["0", "1", "nonlocal1", "2", "3", "nonlocal3"]
    assert all(isinstance(block, VideoNonLocalBlock) for block in network.nonlocal_layers().values())


# ---- Features and class evidence


def test_features_stop_after_the_last_stage_asked_for() -> None:
    network, ran = tiny(stagewise_config()).eval(), []
    for name in ("stem", "layer1", "layer2", "layer3", "layer4"):
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    clip = torch.randn(1, 3, 4, 32, 32)
    assert list(network.extract_features(clip, ["stage2"])) == ["stage2"]
    assert ran == ["stem", "layer1", "layer2"]
    assert list(network.extract_features(clip, return_stages=["stage3", "stage1"])) == ["stage1", "stage3"]
    ran.clear()
    assert network.extract_features(clip, []) == {}
    assert not ran
    assert network.extract_features(clip) == {}


def test_features_include_the_blocks_of_their_stage() -> None:
    network, outputs = tiny(I3D_NL).eval(), []
    network.get_submodule("layer2.nonlocal3").register_forward_hook(lambda m, i, output: outputs.append(output))
    features = network.extract_features(torch.randn(1, 3, 4, 32, 32), ["stage2"])
    assert features["stage2"] is outputs[0]


def test_class_activation_map_sums_to_the_logit() -> None:
    network, outputs = tiny(I3D_NL).eval(), []
    network.get_submodule(network.feature_layer).register_forward_hook(lambda m, i, output: outputs.append(output))
    with torch.inference_mode():
        logits = network(torch.randn(2, 3, 4, 64, 96))
        for indices in (torch.tensor([3, 0]), [3, 0]):
            maps = network.class_activation_map(outputs[0], indices)
            assert maps.shape == (2, 2, 2, 2, 3)
            torch.testing.assert_close(maps.sum(dim=(2, 3, 4)) + network.fc.bias[[3, 0]], logits[:, [3, 0]])
    with pytest.raises(ValueError, match=r"should be class indices, shape \(K,\), from 0 to 4"):
        network.class_activation_map(outputs[0], torch.tensor([5]))


# ---- Configurations


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_survives_json(name: str) -> None:
    config = PUBLISHED[name][0]
    assert TypeAdapter(ResNet3DConfig).validate_python(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": "wide"}, "block = 'wide' should be one of"),
        ({"temporal_conv": "last"}, "temporal_conv = 'last' should be 'first' or 'middle'"),
        ({"blocks_per_stage": (2, 2)}, r"blocks_per_stage = \(2, 2\) should have four entries"),
        ({"blocks_per_stage": (2, 2, 0, 2)}, "should be from 1 to 1000 blocks each"),
        ({"temporal_kernels": ((3,), (2,), (3,), (3,))}, "should be odd"),
        ({"temporal_kernels": ((3,), (), (3,), (3,))}, "should be odd"),
        ({"num_classes": 0}, "num_classes = 0 should be at least 1"),
        ({"temporal_pool": 0}, "temporal_pool = 0 should be at least 1"),
        ({"block": "bottleneck", "factorised": True}, "only acts on block='basic'"),
        ({"dropout": 1.0}, "dropout = 1.0 should be at least 0 and below 1"),
        ({"nonlocal_blocks": {"layer2.9": NonLocalConfig()}}, r"names \['layer2.9'\]; this network has layer1.0, "),
    ],
)
def test_bad_configurations(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet3DConfig(**changes)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"nonlocal_stages = \[3, 5\] has \[5\]; the stages are 1, 2, 3 and 4"):
        Video3DResNet(nonlocal_stages=[3, 5])
    network = tiny(stagewise_config())
    with pytest.raises(ValueError, match="return_stages has \\['layer3'\\]; the stages are stage1, stage2"):
        network.extract_features(torch.randn(1, 3, 4, 32, 32), ["layer3"])
    with pytest.raises(ValueError, match=r"should be \(B, 3, T, H, W\)"):
        network(torch.randn(3, 4, 32, 32))
