"""Published 3D ResNets, written down once more in plain functions of named tensors.

From the projects' descriptions, with nothing of this package: where the other projects differ is an option, so that a
test can ask whether each difference shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}  # res2 to res5 of 50 layers


@dataclass(frozen=True)
class Plain:
    """One project's choices."""

    source: Literal["pyslowfast", "mmaction2", "caffe2"]
    kernel: Literal["softmax", "dot", "gaussian"] = "softmax"
    pool_first: bool = True
    """Max-pooling before phi and g, or after."""
    scaled: bool = True
    """Affinities times channels ** -0.5 before the softmax."""
    count: Literal["pooled", "all"] = "pooled"
    """The dot product is divided by the number of keys, or by that of all positions."""
    out_bias: bool = True
    """Whether the block's last convolution has a bias."""
    block_eps: float = 1e-5
    """Epsilon of the non-local blocks' batch norms."""
    stem_stride: int = 1
    pool: tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]] = ((1, 3, 3), (1, 2, 2), (0, 1, 1))
    pool_time: bool = True
    """Max-pooling of time by two between res2 and res3."""
    places: tuple[tuple[int, ...], tuple[int, ...]] = ((1, 3), (1, 3, 5))
    """Blocks of res3 and of res4 that a non-local block follows."""
    groups: int | None = None
    """Frames that see each other in res3."""


def logits(plain: Plain, state: State, clip: Tensor) -> Tensor:
    """(B, 3, T, H, W) -> (B, classes), averaged over all places of the last features."""
    x = _normed(plain, state, _stem(plain), clip, (plain.stem_stride, 2, 2)).relu()
    x = F.max_pool3d(x, *plain.pool)
    for stage, count in BLOCKS.items():
        if stage == 3 and plain.pool_time:
            x = F.max_pool3d(x, (2, 1, 1))
        for block in range(count):
            x = _residual(plain, state, stage, block, x)
            if stage in (3, 4) and block in plain.places[stage - 3]:
                x = _nonlocal(plain, state, stage, block, x)
    weight, bias = {
        "pyslowfast": ("head.projection.weight", "head.projection.bias"),
        "mmaction2": ("cls_head.fc_cls.weight", "cls_head.fc_cls.bias"),
        "caffe2": ("pred_w", "pred_b"),
    }[plain.source]
    return F.linear(x.mean((2, 3, 4)), state[weight], state[bias])


def _residual(plain: Plain, state: State, stage: int, block: int, x: Tensor) -> Tensor:
    stride = (1, 2, 2) if stage > 2 and block == 0 else (1, 1, 1)
    y = _normed(plain, state, _branch(plain, stage, block, "a"), x).relu()
    y = _normed(plain, state, _branch(plain, stage, block, "b"), y, stride).relu()
    y = _normed(plain, state, _branch(plain, stage, block, "c"), y)
    shortcut = x if block else _normed(plain, state, _branch(plain, stage, block, "shortcut"), x, stride)
    return (y + shortcut).relu()


def _nonlocal(plain: Plain, state: State, stage: int, block: int, x: Tensor) -> Tensor:
    if plain.groups and stage == 3:
        parts = x.split(plain.groups, dim=2)  # in time
        return torch.cat([_nonlocal_group(plain, state, stage, block, part) for part in parts], dim=2)
    return _nonlocal_group(plain, state, stage, block, x)


def _nonlocal_group(plain: Plain, state: State, stage: int, block: int, x: Tensor) -> Tensor:
    def pool(grid: Tensor) -> Tensor:
        return F.max_pool3d(grid, (1, 2, 2))

    def conv(part: str, grid: Tensor) -> Tensor:
        weight, bias = _embedding(plain, stage, block, part)
        return F.conv3d(grid, state[weight], state[bias])

    g = conv("g", pool(x)) if plain.pool_first else pool(conv("g", x))
    if plain.kernel == "gaussian":
        theta, phi = x, pool(x)
    else:
        theta = conv("theta", x)
        phi = conv("phi", pool(x)) if plain.pool_first else pool(conv("phi", x))
    affinity = torch.einsum("bcn,bcm->bnm", theta.flatten(2), phi.flatten(2))
    if plain.kernel == "dot":
        weights = affinity / (phi if plain.count == "pooled" else theta).flatten(2).shape[2]
    else:
        weights = (affinity * theta.shape[1] ** -0.5 if plain.scaled else affinity).softmax(dim=2)
    y = torch.einsum("bnm,bcm->bcn", weights, g.flatten(2)).view(*g.shape[:2], *x.shape[2:])
    weight, bias = _embedding(plain, stage, block, "out")
    y = F.conv3d(y, state[weight], state[bias] if plain.out_bias else None)
    y = _batch_norm(plain, state, _nonlocal_norm(plain, stage, block), y, plain.block_eps)
    return x + y


def _normed(
    plain: Plain, state: State, names: tuple[str, str], x: Tensor, stride: tuple[int, int, int] = (1, 1, 1)
) -> Tensor:
    """Convolution padded by half its kernel, and batch norm."""
    weight = state[names[0]]
    padding = [side // 2 for side in weight.shape[2:]]
    return _batch_norm(plain, state, names[1], F.conv3d(x, weight, None, stride, padding))


def _batch_norm(plain: Plain, state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    if plain.source == "caffe2":
        mean, variance, gain, bias = (state.get(f"{name}_{part}") for part in ("rm", "riv", "s", "b"))
    else:
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, variance, gain, bias = (state[f"{name}.{part}"] for part in parts)
    shape = (1, -1, 1, 1, 1)
    if mean is not None and variance is not None:
        x = (x - mean.view(shape)) / (variance.view(shape) + eps).sqrt()
    if gain is None or bias is None:
        return x
    return x * gain.view(shape) + bias.view(shape)


# ---- Names: (convolution's weight, batch norm)


def _stem(plain: Plain) -> tuple[str, str]:
    return {
        "pyslowfast": ("s1.pathway0_stem.conv.weight", "s1.pathway0_stem.bn"),
        "mmaction2": ("backbone.conv1.conv.weight", "backbone.conv1.bn"),
        "caffe2": ("conv1_w", "res_conv1_bn"),
    }[plain.source]


def _branch(plain: Plain, stage: int, block: int, part: str) -> tuple[str, str]:
    if plain.source == "pyslowfast":
        name = f"s{stage}.pathway0_res{block}." + ("branch1" if part == "shortcut" else f"branch2.{part}")
        return f"{name}.weight", f"{name}_bn"
    if plain.source == "caffe2":
        name = f"res{stage}_{block}_" + ("branch1" if part == "shortcut" else f"branch2{part}")
        return f"{name}_w", f"{name}_bn"
    layer = {"a": "conv1", "b": "conv2", "c": "conv3", "shortcut": "downsample"}[part]
    name = f"backbone.layer{stage - 1}.{block}.{layer}"
    return f"{name}.conv.weight", f"{name}.bn"


def _embedding(plain: Plain, stage: int, block: int, part: str) -> tuple[str, str]:
    if plain.source == "pyslowfast":
        name = f"s{stage}.pathway0_nonlocal{block}.conv_{part}"
        return f"{name}.weight", f"{name}.bias"
    if plain.source == "caffe2":
        name = f"nonlocal_conv{stage}_{block}_{part}"
        return f"{name}_w", f"{name}_b"
    inner = {"theta": "theta", "phi": "phi.0", "g": "g.0", "out": "conv_out"}[part]
    name = f"backbone.layer{stage - 1}.{block}.non_local_block.{inner}.conv"
    return f"{name}.weight", f"{name}.bias"


def _nonlocal_norm(plain: Plain, stage: int, block: int) -> str:
    return {
        "pyslowfast": f"s{stage}.pathway0_nonlocal{block}.bn",
        "mmaction2": f"backbone.layer{stage - 1}.{block}.non_local_block.conv_out.bn",
        "caffe2": f"nonlocal_conv{stage}_{block}_bn",
    }[plain.source]


# ---- 3D-ResNets-PyTorch


def kenshohara_logits(state: State, clip: Tensor, *, time_stride: int = 2, pool_time: bool = True) -> Tensor:
    """Its networks of 18 layers and more: everything 3x3x3, everything strided in time."""

    def normed(conv: str, norm: str, x: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = F.conv3d(x, weight, None, stride, [side // 2 for side in weight.shape[2:]])
        statistics = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *statistics, training=False, eps=1e-5)

    x = normed("conv1", "bn1", clip, (1, 2, 2)).relu()
    x = F.max_pool3d(x, 3, 2 if pool_time else (1, 2, 2), 1)
    for layer in range(1, 5):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in state:
            name = f"layer{layer}.{block}"
            stride = (time_stride, 2, 2) if layer > 1 and block == 0 else (1, 1, 1)
            is_bottleneck = f"{name}.conv3.weight" in state
            y = normed(f"{name}.conv1", f"{name}.bn1", x, (1, 1, 1) if is_bottleneck else stride).relu()
            y = normed(f"{name}.conv2", f"{name}.bn2", y, stride if is_bottleneck else (1, 1, 1))
            if is_bottleneck:
                y = normed(f"{name}.conv3", f"{name}.bn3", y.relu())
            if f"{name}.downsample.0.weight" in state:
                x = normed(f"{name}.downsample.0", f"{name}.downsample.1", x, stride)
            x = (y + x).relu()
            block += 1
    return F.linear(x.mean((2, 3, 4)), state["fc.weight"], state["fc.bias"])
