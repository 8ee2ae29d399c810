"""The published 3D residual networks as configurations of `Video3DResNet.from_config`.

Several differ in nothing that their weights' shapes would show: strides and padding of the stem, where keys are
pooled, the scale of the softmax. So a weights file has to come with its configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from nonlocal_video.blocks import NonLocalConfig, NonLocalType
from nonlocal_video.models.resnet3d import MaxPool, ResNet3DConfig

BLOCKS_PER_STAGE: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""Blocks per stage of a depth; 18 and 34 are of basic blocks, the others of bottlenecks."""

SPATIAL_STRIDES = ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))
SPACETIME_STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))

FIVE_BLOCKS = {2: (1, 3), 3: (1, 3, 5)}
"""Wang et al., section 4: after every second residual block of stages 2 and 3 of a 50-layer network."""

EMBEDDED_GAUSSIAN_PYSLOWFAST = NonLocalConfig(pool_order="pool_conv", scale="inverse_sqrt")
"""As in the authors' Caffe2 code and in PySlowFast."""
DOT_PRODUCT_PYSLOWFAST = NonLocalConfig(nonlocal_type="dot_product", pool_order="pool_conv")


def nonlocal_after(blocks: Mapping[int, Sequence[int]], config: NonLocalConfig) -> dict[str, NonLocalConfig]:
    """The same non-local block after some residual blocks: stage (1 to 4) -> block indices from 0."""
    return {f"layer{stage}.{index}": config for stage, indices in blocks.items() for index in indices}


def i3d(
    depth: int = 50, *, nonlocal_blocks: dict[str, NonLocalConfig] | None = None, num_classes: int = 400
) -> ResNet3DConfig:
    """Inflated 3D, Wang et al., section 4.1, as in PySlowFast (I3D_8x8_R50, I3D_NLN_8x8_R50) and pytorchvideo."""
    return ResNet3DConfig(
        num_classes=num_classes,
        block="bottleneck",
        blocks_per_stage=_blocks_per_stage(depth, "bottleneck"),
        stem_kernel=(5, 7, 7),
        temporal_pool=2,
        stage_strides=SPATIAL_STRIDES,
        temporal_kernels=((3,), (3, 1), (3, 1), (1, 3)),
        temporal_conv="first",
        nonlocal_blocks=nonlocal_blocks or {},
        dropout=0.5,
    )


def c2d(
    depth: int = 50,
    *,
    nonlocal_blocks: dict[str, NonLocalConfig] | None = None,
    temporal_pool: int = 2,
    num_classes: int = 400,
) -> ResNet3DConfig:
    """2D kernels on video, Wang et al., table 1. PySlowFast's C2D_NOPOOL has temporal_pool=1."""
    return replace(
        i3d(depth, nonlocal_blocks=nonlocal_blocks, num_classes=num_classes),
        stem_kernel=(1, 7, 7),
        temporal_pool=temporal_pool,
        temporal_kernels=((1,), (1,), (1,), (1,)),
    )


def slow(
    depth: int = 50, *, nonlocal_blocks: dict[str, NonLocalConfig] | None = None, num_classes: int = 400
) -> ResNet3DConfig:
    """The slow pathway of Feichtenhofer et al., ICCV 2019, alone; in PySlowFast, pytorchvideo and mmaction2."""
    return replace(
        i3d(depth, nonlocal_blocks=nonlocal_blocks, num_classes=num_classes),
        stem_kernel=(1, 7, 7),
        temporal_pool=1,
        temporal_kernels=((1,), (1,), (3,), (3,)),
    )


def caffe2(
    trunk: Literal["i3d", "c2d"],
    sampling: Literal["8x8", "32x2", "32x4", "128x1"],
    *,
    with_nonlocal: bool,
    num_classes: int = 400,
) -> ResNet3DConfig:
    """The authors' own networks (video-nonlocal-net), named by their number of frames x frame step.

    The first max-pooling has no padding, so stage 1 sees 55x55 cells of a 224x224 clip. 32x2 and 128x1 also halve
    time twice before it. In the long clips of 32x4 and 128x1 the blocks of stage 2 see groups of four frames.
    """
    blocks = nonlocal_after(FIVE_BLOCKS, EMBEDDED_GAUSSIAN_PYSLOWFAST)
    if sampling in ("32x4", "128x1"):
        blocks |= nonlocal_after({2: FIVE_BLOCKS[2]}, replace(EMBEDDED_GAUSSIAN_PYSLOWFAST, temporal_groups=4))
    builder = i3d if trunk == "i3d" else c2d
    step = 2 if sampling in ("32x2", "128x1") else 1  # of the stem and of its pooling, along time
    return replace(
        builder(nonlocal_blocks=blocks if with_nonlocal else None, num_classes=num_classes),
        stem_stride=(step, 2, 2),
        stem_pool=MaxPool((step, 3, 3), (step, 2, 2), (0, 0, 0)),
    )


def mmaction2_i3d(nonlocal_type: NonLocalType | None = None, *, num_classes: int = 400) -> ResNet3DConfig:
    """mmaction2's I3D of 32 frames, plain or with five blocks: no scale, no bias in W, keys pooled after phi and g."""
    block = NonLocalConfig(nonlocal_type=nonlocal_type, out_bias=False) if nonlocal_type else None
    return replace(
        i3d(nonlocal_blocks=nonlocal_after(FIVE_BLOCKS, block) if block else None, num_classes=num_classes),
        stem_stride=(2, 2, 2),
        stem_pool=MaxPool((1, 3, 3), (2, 2, 2), (0, 1, 1)),
    )


def mmaction2_slowonly_nonlocal(*, num_classes: int = 400) -> ResNet3DConfig:
    """mmaction2's SlowOnly with embedded Gaussian blocks: scaled, and after the even residual blocks."""
    block = NonLocalConfig(scale="inverse_sqrt", out_bias=False)
    return slow(nonlocal_blocks=nonlocal_after({2: (0, 2), 3: (0, 2, 4)}, block), num_classes=num_classes)


def r3d_18(*, num_classes: int = 400) -> ResNet3DConfig:
    """torchvision's r3d_18: 3x3x3 convolutions, no pooling (Tran et al., CVPR 2018, R3D)."""
    return ResNet3DConfig(
        num_classes=num_classes,
        blocks_per_stage=BLOCKS_PER_STAGE[18],
        stem_pool=None,
        stage_strides=SPACETIME_STRIDES,
    )


def mc3_18(*, num_classes: int = 400) -> ResNet3DConfig:
    """torchvision's mc3_18: 3D convolutions in the stem and in stage 1 only (Tran et al., CVPR 2018, MC3)."""
    return replace(
        r3d_18(num_classes=num_classes),
        stage_strides=SPATIAL_STRIDES,
        temporal_kernels=((3,), (1,), (1,), (1,)),
    )


def r2plus1d_18(*, num_classes: int = 400) -> ResNet3DConfig:
    """torchvision's r2plus1d_18: a convolution in space, then one in time (Tran et al., CVPR 2018, R(2+1)D)."""
    return replace(r3d_18(num_classes=num_classes), stem_mid_channels=45, factorised=True)


def kenshohara(depth: int = 34, *, num_classes: int = 700) -> ResNet3DConfig:
    """3D-ResNets-PyTorch (Hara et al., CVPR 2018): 3x3x3 everywhere, also in the middle of a bottleneck."""
    block: Literal["basic", "bottleneck"] = "basic" if depth < 50 else "bottleneck"
    return ResNet3DConfig(
        num_classes=num_classes,
        block=block,
        blocks_per_stage=_blocks_per_stage(depth, block),
        stem_kernel=(7, 7, 7),
        stem_pool=MaxPool((3, 3, 3), (2, 2, 2), (1, 1, 1)),
        stage_strides=SPACETIME_STRIDES,
        temporal_conv="middle",
    )


def _blocks_per_stage(depth: int, block: Literal["basic", "bottleneck"]) -> tuple[int, int, int, int]:
    known = [d for d in BLOCKS_PER_STAGE if (d < 50) == (block == "basic")]
    if depth not in known:
        raise ValueError(f"{depth = } should be one of {known} for a network of {block} blocks.")
    return BLOCKS_PER_STAGE[depth]
