"""Properties that no tensor's shape shows, stated for every row: stem, pooling, strides, and places of the blocks.

The figures are restated here from the publishers' code and read off the built modules, so they depend on neither the
catalogue's file format nor the library that reads it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from torch import nn

import nonlocal_video as nlv
from nonlocal_video.errors import ModelError
from nonlocal_video.models.checkpoint import build_network
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.zoo import catalogue
from nonlocal_video.zoo.catalogue import entries, entry
from nonlocal_video.zoo.catalogue_file import read_rows

CATALOGUE = Path(__file__).parents[2] / "weights" / "catalogue.yaml"

Triple = tuple[int, int, int]


class Layer(NamedTuple):
    kernel: Triple
    stride: Triple
    padding: Triple


class Geometry(NamedTuple):
    stem: Layer
    pool: Layer | None
    temporal_pool: int
    strides: tuple[Triple, Triple, Triple, Triple]
    temporal_kernels: tuple[tuple[int, ...], ...]
    """Largest kernel along time of each stage's first two residual blocks."""


class Blocks(NamedTuple):
    """The non-local blocks: where, kernel, whether keys are pooled before phi and g, scale, bias of the output."""

    places: tuple[str, ...]
    kernel: str
    pools_first: bool
    scale: str | None
    out_bias: bool
    in_fours: tuple[str, ...] = ()


SPATIAL = ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))
SPACETIME = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
ODD = ((3, 3), (3, 1), (3, 1), (1, 3))
NO_TIME = ((1, 1), (1, 1), (1, 1), (1, 1))
LATE = ((1, 1), (1, 1), (3, 3), (3, 3))
ALL_TIME = ((3, 3), (3, 3), (3, 3), (3, 3))
PADDED = Layer((1, 3, 3), (1, 2, 2), (0, 1, 1))
UNPADDED = Layer((1, 3, 3), (1, 2, 2), (0, 0, 0))
UNPADDED_HALVING = Layer((2, 3, 3), (2, 2, 2), (0, 0, 0))
STEM_5 = Layer((5, 7, 7), (1, 2, 2), (2, 3, 3))
STEM_5_HALVING = Layer((5, 7, 7), (2, 2, 2), (2, 3, 3))
STEM_1 = Layer((1, 7, 7), (1, 2, 2), (0, 3, 3))
STEM_1_HALVING = Layer((1, 7, 7), (2, 2, 2), (0, 3, 3))

I3D = Geometry(STEM_5, PADDED, 2, SPATIAL, ODD)
C2D = Geometry(STEM_1, PADDED, 2, SPATIAL, NO_TIME)
C2D_NO_POOL = C2D._replace(temporal_pool=1)
SLOW = Geometry(STEM_1, PADDED, 1, SPATIAL, LATE)
CAFFE2_I3D = I3D._replace(pool=UNPADDED)
CAFFE2_C2D = C2D._replace(pool=UNPADDED)
CAFFE2_I3D_HALVING = I3D._replace(stem=STEM_5_HALVING, pool=UNPADDED_HALVING)
CAFFE2_C2D_HALVING = C2D._replace(stem=STEM_1_HALVING, pool=UNPADDED_HALVING)
MMACTION2_I3D = I3D._replace(stem=STEM_5_HALVING, pool=Layer((1, 3, 3), (2, 2, 2), (0, 1, 1)))
MMACTION2_HEAVY = I3D._replace(temporal_kernels=ALL_TIME)
R3D_18 = Geometry(Layer((3, 7, 7), (1, 2, 2), (1, 3, 3)), None, 1, SPACETIME, ALL_TIME)
MC3_18 = R3D_18._replace(strides=SPATIAL, temporal_kernels=((3, 3), (1, 1), (1, 1), (1, 1)))
R2PLUS1D_18 = R3D_18._replace(stem=Layer((1, 7, 7), (1, 2, 2), (0, 3, 3)))
KENSHOHARA = Geometry(
    Layer((7, 7, 7), (1, 2, 2), (3, 3, 3)), Layer((3, 3, 3), (2, 2, 2), (1, 1, 1)), 1, SPACETIME, ALL_TIME
)

FIVE = ("layer2.nonlocal1", "layer2.nonlocal3", "layer3.nonlocal1", "layer3.nonlocal3", "layer3.nonlocal5")
FIVE_EVEN = ("layer2.nonlocal0", "layer2.nonlocal2", "layer3.nonlocal0", "layer3.nonlocal2", "layer3.nonlocal4")
FIVE_101 = ("layer2.nonlocal1", "layer2.nonlocal3", "layer3.nonlocal6", "layer3.nonlocal13", "layer3.nonlocal20")
FACEBOOK = Blocks(FIVE, "embedded_gaussian", True, "inverse_sqrt", True)
FACEBOOK_DOT = Blocks(FIVE, "dot_product", True, None, True)
IN_FOURS = FACEBOOK._replace(in_fours=FIVE[:2])
MMCV = Blocks(FIVE, "embedded_gaussian", False, None, False)

ROWS: dict[str, tuple[Geometry, Blocks | None]] = {
    "i3d-nl-r50-8x8-k400-pyslowfast": (I3D, FACEBOOK),
    "i3d-r50-8x8-k400-pyslowfast": (I3D, None),
    "slow-r50-8x8-k400-pyslowfast": (SLOW, None),
    "slow-r50-4x16-k400-pyslowfast": (SLOW, None),
    "c2d-r50-8x8-k400-pyslowfast": (C2D_NO_POOL, None),
    "c2d-nl-r50-8x8-k400-pyslowfast": (C2D, FACEBOOK),
    "slow-nl-dot-r50-8x8-k400-pyslowfast": (SLOW, FACEBOOK_DOT),
    "slow-nl-dot-r50-4x16-k400-pyslowfast": (SLOW, FACEBOOK_DOT),
    "i3d-nl-r101-8x8-k400-pyslowfast": (I3D, FACEBOOK),
    "i3d-nl-r50-32x2-k400-caffe2": (CAFFE2_I3D_HALVING, FACEBOOK),
    "i3d-nl-r50-8x8-k400-caffe2": (CAFFE2_I3D, FACEBOOK),
    "i3d-nl-r50-32x4-k400-caffe2": (CAFFE2_I3D, IN_FOURS),
    "i3d-nl-r50-128x1-k400-caffe2": (CAFFE2_I3D_HALVING, IN_FOURS),
    "c2d-nl-r50-8x8-k400-caffe2": (CAFFE2_C2D, FACEBOOK),
    "c2d-nl-r50-32x2-k400-caffe2": (CAFFE2_C2D_HALVING, FACEBOOK),
    "i3d-r50-32x2-k400-caffe2": (CAFFE2_I3D_HALVING, None),
    "i3d-r50-8x8-k400-caffe2": (CAFFE2_I3D, None),
    "i3d-r50-32x4-k400-caffe2": (CAFFE2_I3D, None),
    "i3d-r50-128x1-k400-caffe2": (CAFFE2_I3D_HALVING, None),
    "c2d-r50-8x8-k400-caffe2": (CAFFE2_C2D, None),
    "c2d-r50-32x2-k400-caffe2": (CAFFE2_C2D_HALVING, None),
    "i3d-nl-r101-128x1-k400-caffe2": (CAFFE2_I3D_HALVING, IN_FOURS._replace(places=FIVE_101)),
    "i3d-nl-dot-r50-32x2-k400-mmaction2": (MMACTION2_I3D, MMCV._replace(kernel="dot_product")),
    "i3d-nl-embedded-r50-32x2-k400-mmaction2": (MMACTION2_I3D, MMCV),
    "i3d-nl-gaussian-r50-32x2-k400-mmaction2": (MMACTION2_I3D, MMCV._replace(kernel="gaussian")),
    "i3d-r50-32x2-k400-mmaction2": (MMACTION2_I3D, None),
    "i3d-dense-r50-32x2-k400-mmaction2": (MMACTION2_I3D, None),
    "i3d-heavy-r50-32x2-k400-mmaction2": (MMACTION2_HEAVY, None),
    "slowonly-nl-embedded-r50-4x16-k400-mmaction2": (SLOW, MMCV._replace(places=FIVE_EVEN, scale="inverse_sqrt")),
    "slowonly-nl-embedded-r50-8x8-k400-mmaction2": (SLOW, MMCV._replace(places=FIVE_EVEN, scale="inverse_sqrt")),
    "i3d-nl-dot-r50-32x2-k400-mmaction2-v0": (MMACTION2_I3D, MMCV._replace(kernel="dot_product")),
    "i3d-nl-embedded-r50-32x2-k400-mmaction2-v0": (MMACTION2_I3D, MMCV),
    "i3d-nl-gaussian-r50-32x2-k400-mmaction2-v0": (MMACTION2_I3D, MMCV._replace(kernel="gaussian")),
    "slowonly-nl-embedded-r50-4x16-k400-mmaction2-v0": (SLOW, MMCV._replace(places=FIVE_EVEN, scale="inverse_sqrt")),
    "slowonly-nl-embedded-r50-8x8-k400-mmaction2-v0": (SLOW, MMCV._replace(places=FIVE_EVEN, scale="inverse_sqrt")),
    "slow-r50-8x8-k400-pytorchvideo": (SLOW, None),
    "i3d-r50-8x8-k400-pytorchvideo": (I3D, None),
    "c2d-r50-8x8-k400-pytorchvideo": (C2D, None),
    "r3d-18-k400-torchvision": (R3D_18, None),
    "mc3-18-k400-torchvision": (MC3_18, None),
    "r2plus1d-18-k400-torchvision": (R2PLUS1D_18, None),
    **{f"r3d-{depth}-k700-kenshohara": (KENSHOHARA, None) for depth in (18, 34, 50, 101, 152, 200)},
}


def triple(value: Any) -> Triple:
    a, b, c = value if isinstance(value, (tuple, list)) else (value,) * 3
    return (a, b, c)


def layer_of(module: nn.Conv3d | nn.MaxPool3d) -> Layer:
    return Layer(triple(module.kernel_size), triple(module.stride), triple(module.padding))


def convolutions(block: nn.Module) -> list[nn.Conv3d]:
    """Those of the main path, without the shortcut's."""
    return [m for name, m in block.named_modules() if isinstance(m, nn.Conv3d) and not name.startswith("shortcut")]


def geometry_of(network: Video3DResNet) -> Geometry:
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    pool, temporal = network.stem_pool, network.temporal_pool
    strides = [
        tuple(math.prod(triple(conv.stride)[axis] for conv in convolutions(stage[0])) for axis in range(3))
        for stage in stages
    ]
    kernels = [
        tuple(max(triple(conv.kernel_size)[0] for conv in convolutions(stage.get_submodule(str(i)))) for i in (0, 1))
        for stage in stages
    ]
    return Geometry(
        stem=layer_of(next(module for module in network.stem.modules() if isinstance(module, nn.Conv3d))),
        pool=layer_of(pool) if isinstance(pool, nn.MaxPool3d) else None,
        temporal_pool=triple(temporal.stride)[0] if isinstance(temporal, nn.MaxPool3d) else 1,
        strides=tuple(strides),
        temporal_kernels=tuple(kernels),
    )


def blocks_of(network: Video3DResNet) -> Blocks | None:
    blocks = {name: block.config for name, block in network.nonlocal_layers().items()}
    if not blocks:
        return None
    kinds = {(one.nonlocal_type, one.pool_order == "pool_conv", one.scale, one.out_bias) for one in blocks.values()}
    assert len(kinds) == 1, "blocks of one network differ in more than their temporal groups"
    ((kernel, pools_first, scale, out_bias),) = kinds
    in_fours = tuple(name for name, one in blocks.items() if one.temporal_groups == 4)
    assert all(one.temporal_groups in (None, 4) for one in blocks.values())
    return Blocks(tuple(blocks), kernel, pools_first, scale, out_bias, in_fours)


def test_every_row_is_stated() -> None:
    assert list(ROWS) == [row.name for row in entries().values() if row.architecture == "resnet3d"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_geometry(name: str) -> None:
    with torch.device("meta"):
        network = build_network(entry(name).card)
    assert isinstance(network, Video3DResNet)
    assert (geometry_of(network), blocks_of(network)) == ROWS[name]


def test_the_file_leaves_nothing_to_a_yaml_library() -> None:
    """No anchors, aliases, merge keys or tags, and no key twice in one mapping."""
    text = CATALOGUE.read_text("utf-8")
    for token in yaml.scan(text):
        assert not isinstance(token, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)), token
    nodes = [yaml.compose(text)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert "<<" not in keys
            assert len(keys) == len(set(keys)), f"a key stands twice at {node.start_mark}"
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def test_parts_take_what_they_do_not_state_from_the_part_they_are_like() -> None:
    text = """
trunks: {a: {width: 8, dropout: 0.5}, b: {like: a, dropout: 0.1}, c: {like: b, width: 4}}
nonlocal_blocks: {x: {scale: null}}
inputs: {i: {crop: 112}}
licences: {mit: {name: MIT}}
shared_notes: {n: Shared.}
checkpoints:
  - {name: one, trunk: c, changes: {temporal_pool: 2}, nonlocal_blocks: {x: [layer1.0, layer2.0]}, input: i,
     licence: mit, shared_notes: [n], notes: [Own.]}
  - {name: two, trunk: a, input: i, licence: mit}
"""
    one, two = read_rows(text)
    assert one["config"] == {
        "width": 4,
        "dropout": 0.1,
        "temporal_pool": 2,
        "nonlocal_blocks": {"layer1.0": {"scale": None}, "layer2.0": {"scale": None}},
    }
    assert one["notes"] == ["Shared.", "Own."]
    assert two["config"] == {"width": 8, "dropout": 0.5}
    assert one["input"] is not two["input"]
    for wrong in ("trunk: c,", "like: a,", "input: i,", "licence: mit,"):
        with pytest.raises(ValueError, match="has no 'nothing'"):
            read_rows(text.replace(wrong, wrong.split(":")[0] + ": nothing,"))


@pytest.mark.parametrize(
    "config",
    [
        {"stem_stride": [1, 2, 2]},  # the wrong stem of another order of merging: time is not halved
        {"stem_stride": [1, 2, 2], "blocks_per_stage": [3, 4, 6, 4]},
        {"temporal_pool": 1},
    ],
)
def test_a_network_unlike_its_row_is_not_built(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    row = entry("i3d-nl-r50-32x2-k400-caffe2")
    catalogue._shapes.cache_clear()
    monkeypatch.setitem(row.config, "stem_stride", row.config["stem_stride"])
    for name, value in config.items():
        monkeypatch.setitem(row.config, name, value)
    try:
        with pytest.raises(ModelError, match="where its publisher has 35,401,936 and \\(2048, 4, 7, 7\\)"):
            nlv.build(row.name)
    finally:
        catalogue._shapes.cache_clear()
