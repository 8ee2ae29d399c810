"""Our names and shapes, translated, are those of every published file, and nothing else."""

from __future__ import annotations

import pytest
import torch
from published_tensors import published_tensors

from nonlocal_video.blocks import NonLocalConfig
from nonlocal_video.models.checkpoint import build_network
from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet
from nonlocal_video.zoo.catalogue import entry
from nonlocal_video.zoo.layout import Layout, parse
from nonlocal_video.zoo.names import caffe2, kenshohara, mmaction2, pyslowfast, pytorchvideo, torchvision, tushar_n

FILES: dict[str, tuple[str, Layout]] = {
    "kenshohara_r3d34_K700": ("r3d-34-k700-kenshohara", kenshohara.LAYOUT),
    "kenshohara_r3d50_K700": ("r3d-50-k700-kenshohara", kenshohara.LAYOUT),
    "mmaction2_i3d_nl_dot_product_r50": ("i3d-nl-dot-r50-32x2-k400-mmaction2", mmaction2.LAYOUT),
    "mmaction2_i3d_nl_embedded_gaussian_r50": ("i3d-nl-embedded-r50-32x2-k400-mmaction2", mmaction2.LAYOUT),
    "mmaction2_i3d_nl_gaussian_r50": ("i3d-nl-gaussian-r50-32x2-k400-mmaction2", mmaction2.LAYOUT),
    "mmaction2_i3d_r50": ("i3d-r50-32x2-k400-mmaction2", mmaction2.LAYOUT),
    "mmaction2_slowonly_nl_embedded_gaussian_4x16_r50": (
        "slowonly-nl-embedded-r50-4x16-k400-mmaction2",
        mmaction2.LAYOUT,
    ),
    "pyslowfast_C2D_NLN_8x8_R50": ("c2d-nl-r50-8x8-k400-pyslowfast", pyslowfast.LAYOUT),
    "pyslowfast_I3D_8x8_R50": ("i3d-r50-8x8-k400-pyslowfast", pyslowfast.LAYOUT),
    "pyslowfast_I3D_NLN_8x8_R50": ("i3d-nl-r50-8x8-k400-pyslowfast", pyslowfast.LAYOUT),
    "pyslowfast_I3D_NLN_8x8_R50.caffe2_blobs": ("i3d-nl-r50-8x8-k400-pyslowfast", caffe2.LAYOUT),
    "pyslowfast_SLOW_8x8_R50": ("slow-r50-8x8-k400-pyslowfast", pyslowfast.LAYOUT),
    "pyslowfast_SLOW_NLN_4x16_R50_dot": ("slow-nl-dot-r50-4x16-k400-pyslowfast", pyslowfast.LAYOUT),
    "pytorchvideo_c2d_r50": ("c2d-r50-8x8-k400-pytorchvideo", pytorchvideo.LAYOUT),
    "pytorchvideo_i3d_r50": ("i3d-r50-8x8-k400-pytorchvideo", pytorchvideo.LAYOUT),
    "pytorchvideo_slow_r50": ("slow-r50-8x8-k400-pytorchvideo", pytorchvideo.LAYOUT),
    "torchvision_mc3_18": ("mc3-18-k400-torchvision", torchvision.LAYOUT),
    "torchvision_r2plus1d_18": ("r2plus1d-18-k400-torchvision", torchvision.LAYOUT),
    "torchvision_r3d_18": ("r3d-18-k400-torchvision", torchvision.LAYOUT),
    "videononlocalnet_i3d_nl_32x2_r50": ("i3d-nl-r50-32x2-k400-caffe2", tushar_n.LAYOUT),
    "videononlocalnet_i3d_nl_32x2_r50.caffe2_blobs": ("i3d-nl-r50-32x2-k400-caffe2", caffe2.LAYOUT),
}


def test_every_listed_file_is_checked() -> None:
    assert set(FILES) == set(published_tensors())


@pytest.mark.parametrize("file", FILES)
def test_names_and_shapes_are_the_published_ones(file: str) -> None:
    name, layout = FILES[file]
    with torch.device("meta"):
        network = build_network(entry(name).card)
    state = network.state_dict()
    names = layout.names(state, network.config)
    assert len(set(names.values())) == len(names)
    made = {theirs: tuple(state[ours].shape) for ours, theirs in names.items()}
    published = published_tensors()[file]
    if layout is caffe2.LAYOUT:
        published = {name: shape for name, shape in published.items() if not caffe2.IGNORED.fullmatch(name)}
    assert made == published
    left_out = [name for name in state if name not in names]
    assert all(name.endswith("num_batches_tracked") for name in left_out)
    assert not left_out or layout is caffe2.LAYOUT


def test_pooling_decides_on_mmaction2s_index() -> None:
    blocks = {"layer2.1": NonLocalConfig(sub_sample=False), "layer3.1": NonLocalConfig()}
    with torch.device("meta"):
        network = Video3DResNet.from_config(ResNet3DConfig(nonlocal_blocks=blocks))
    names = mmaction2.LAYOUT.names(network.state_dict(), network.config)
    assert names["layer2.nonlocal1.g.weight"] == "backbone.layer2.1.non_local_block.g.conv.weight"
    assert names["layer2.nonlocal1.phi.bias"] == "backbone.layer2.1.non_local_block.phi.conv.bias"
    assert names["layer3.nonlocal1.phi.bias"] == "backbone.layer3.1.non_local_block.phi.0.conv.bias"


@pytest.mark.parametrize("layout", [kenshohara.LAYOUT, torchvision.LAYOUT, pytorchvideo.LAYOUT])
def test_projects_without_blocks_have_no_names_for_them(layout: Layout) -> None:
    with torch.device("meta"):
        network = build_network(entry("i3d-nl-r50-8x8-k400-pyslowfast").card)
    with pytest.raises(ValueError, match="no non-local blocks"):
        layout.names(network.state_dict(), network.config)


@pytest.mark.parametrize("name", ["conv1.weight", "layer5.0.conv1.conv.weight", "layer1.0.conv1.weight", "fc"])
def test_other_names_are_not_parsed(name: str) -> None:
    with pytest.raises(ValueError, match="is not a tensor of a Video3DResNet"):
        parse(name)
