"""3D residual networks with non-local blocks, from one configuration. The code reads from top to bottom.

He et al., CVPR 2016 (residual networks); Wang et al., CVPR 2018, table 1 and section 4 (inflated, with non-local
blocks); Tran et al., CVPR 2018 (mixed and (2+1)D convolutions); Hara et al., CVPR 2018 (full 3D). The published
networks are rows of `weights/catalogue.yaml`, `nonlocal_video.zoo.catalogue`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from nonlocal_video.blocks import NonLocalConfig, NonLocalMode, VideoNonLocalBlock
from nonlocal_video.models.tutorial_names import BasicBlockNames, TutorialNames

Triple = tuple[int, int, int]
"""Sizes along (T, H, W)."""
STAGES = ("stage1", "stage2", "stage3", "stage4")
_LAYERS = ("stem", "stem_pool", "layer1", "temporal_pool", "layer2", "layer3", "layer4")
"""Names of the stages in the order in which they run; the head comes after them."""
_EXPANSION = {"basic": 1, "bottleneck": 4}
_MOST_BLOCKS = 1000
_MOST_CELLS = 255


@dataclass(frozen=True)
class MaxPool:
    """A max-pooling layer; all sizes are along (T, H, W)."""

    kernel: Triple
    stride: Triple
    padding: Triple


@dataclass(frozen=True)
class ResNet3DConfig:
    """Configuration of a 3D residual network. Stages are numbered 1 to 4 (res2 to res5 in the papers).

    Raises:
        ValueError: If a value is out of range, or has no meaning beside another one.
    """

    num_classes: int = 400
    """Number of logits."""
    block: Literal["basic", "bottleneck"] = "basic"
    """Residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1 with four times the width at the end."""
    blocks_per_stage: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Number of residual blocks in each stage."""
    width: int = 64
    """Number of channels of the stem and of stage 1's convolutions; it doubles with every stage."""
    stem_kernel: Triple = (3, 7, 7)
    """Kernel of the stem, padded by half of it."""
    stem_stride: Triple = (1, 2, 2)
    """Stride of the stem."""
    stem_mid_channels: int | None = None
    """Number of channels between the (1, k, k) and the (k, 1, 1) convolution of a (2+1)D stem; None is a 3D stem."""
    stem_pool: MaxPool | None = MaxPool((1, 3, 3), (1, 2, 2), (0, 1, 1))
    """Max-pooling after the stem."""
    temporal_pool: int = 1
    """Kernel and stride of a max-pooling over time between stages 1 and 2; 1 leaves the pooling out."""
    stage_strides: tuple[Triple, Triple, Triple, Triple] = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    """Stride of each stage's first residual block, in its first 3x3 convolution and its shortcut."""
    temporal_kernels: tuple[tuple[int, ...], ...] = ((3,), (3,), (3,), (3,))
    """Kernel sizes in time of each stage's residual blocks, repeated over the stage: (3, 1) is 3, 1, 3, 1, ..."""
    temporal_conv: Literal["first", "middle"] = "middle"
    """Convolution of a bottleneck with a kernel in time: the first, (k, 1, 1), or the middle one, (k, 3, 3)."""
    factorised: bool = False
    """Whether basic blocks have (2+1)D convolutions: (1, 3, 3), batch norm, ReLU, (k, 1, 1)."""
    nonlocal_blocks: dict[str, NonLocalConfig] = field(default_factory=dict)
    """Residual block -> the non-local block right after it; "layer3.1" is the second residual block of stage 3."""
    dropout: float = 0.0
    """Probability of dropping a pooled feature before the classifier in training."""
    bn_eps: float = 1e-5
    """Epsilon of the batch norms."""

    def __post_init__(self) -> None:
        if self.block not in _EXPANSION:
            raise ValueError(f"block = {self.block!r} should be one of {tuple(_EXPANSION)}.")
        if self.temporal_conv not in ("first", "middle"):
            raise ValueError(f"temporal_conv = {self.temporal_conv!r} should be 'first' or 'middle'.")
        for name in ("blocks_per_stage", "stage_strides", "temporal_kernels"):
            if len(getattr(self, name)) != len(STAGES):
                raise ValueError(f"{name} = {getattr(self, name)} should have four entries, one for each stage.")
        for name in ("num_classes", "width", "temporal_pool", "stem_mid_channels"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} should be at least 1.")
        if not all(1 <= count <= _MOST_BLOCKS for count in self.blocks_per_stage):
            raise ValueError(
                f"blocks_per_stage = {self.blocks_per_stage} should be from 1 to {_MOST_BLOCKS} blocks each."
            )
        steps = [*self.stem_stride, *(step for stride in self.stage_strides for step in stride), self.temporal_pool]
        if self.stem_pool is not None:
            steps += [*self.stem_pool.kernel, *self.stem_pool.stride]
            if not all(
                0 <= pad <= kernel // 2
                for pad, kernel in zip(self.stem_pool.padding, self.stem_pool.kernel, strict=True)
            ):
                raise ValueError(f"stem_pool = {self.stem_pool} should be padded by at most half of its kernel.")
        if not all(1 <= step <= _MOST_CELLS for step in steps):
            raise ValueError(f"strides and pooling windows should be from 1 to {_MOST_CELLS} cells.")
        if not (math.isfinite(self.bn_eps) and self.bn_eps > 0):
            raise ValueError(f"bn_eps = {self.bn_eps} should be a finite number above 0.")
        for kernels in (*self.temporal_kernels, self.stem_kernel):
            if not kernels or any(not 1 <= kernel <= _MOST_CELLS or kernel % 2 == 0 for kernel in kernels):
                raise ValueError(
                    f"temporal_kernels = {self.temporal_kernels} and stem_kernel = {self.stem_kernel} should be odd, "
                    f"so that padding by half of them keeps the size, and at most {_MOST_CELLS}."
                )
        if self.factorised and self.block != "basic":
            raise ValueError("factorised = True only acts on block='basic'; a bottleneck is factorised already.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout} should be at least 0 and below 1.")
        unknown = sorted(set(self.nonlocal_blocks) - set(self.residual_blocks))
        if unknown:
            raise ValueError(f"nonlocal_blocks names {unknown}; this network has {', '.join(self.residual_blocks)}.")

    @property
    def residual_blocks(self) -> list[str]:
        """Names of the residual blocks, each of which a non-local block can follow."""
        return [f"layer{stage}.{i}" for stage, count in enumerate(self.blocks_per_stage, 1) for i in range(count)]


class ConvBN(nn.Module):
    """Convolution padded by half of its kernel, batch norm, ReLU: (B, C, T, H, W) -> (B, C', T/s, H/s, W/s)."""

    conv_bn_pairs: ClassVar[tuple[tuple[str, str], ...]] = (("conv", "bn"),)

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple, *, eps: float, relu: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=eps)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise and rectify (B, C, T, H, W)."""
        return self.relu(self.bn(self.conv(x)))


class Basic3DBlock(BasicBlockNames, nn.Module):
    """Two (k, 3, 3) convolutions, full or (2+1)D, and a shortcut: (B, C, T, H, W) -> (B, C', T/s, H/s, W/s).

    Args:
        in_channels: C.
        out_channels: C'.
        stride: Of the first convolution and the shortcut along (T, H, W), or one for all three.
        temporal_kernel: k.
        config: Whether the convolutions are (2+1)D, and the epsilon of their batch norms.

    Example:
        >>> Basic3DBlock(8, 16, stride=2)(torch.randn(1, 8, 4, 8, 8)).shape
        torch.Size([1, 16, 2, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: Triple | int = 1,
        temporal_kernel: int = 3,
        config: ResNet3DConfig | None = None,
    ) -> None:
        super().__init__()
        width, config = out_channels, config or ResNet3DConfig()
        stride = (stride, stride, stride) if isinstance(stride, int) else stride
        # With this many channels between its halves a (2+1)D convolution has as many parameters as a full one
        # (Tran et al., section 3.5); one number serves both convolutions of the block.
        mid_channels = 27 * in_channels * width // (9 * in_channels + 3 * width) if config.factorised else None
        kernel = (temporal_kernel, 3, 3)
        self.conv1 = _spacetime_conv(in_channels, width, mid_channels, kernel, stride, eps=config.bn_eps)
        self.conv2 = _spacetime_conv(width, width, mid_channels, kernel, (1, 1, 1), eps=config.bn_eps, relu=False)
        self.shortcut = _shortcut(in_channels, width, stride, config)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add the shortcut to the two convolutions of (B, C, T, H, W)."""
        return self.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, one of them along time, and a shortcut.

    (B, C, T, H, W) -> (B, 4 * width, T/s, H/s, W/s). The stride is in the middle convolution.
    """

    def __init__(
        self, in_channels: int, width: int, stride: Triple, temporal_kernel: int, config: ResNet3DConfig
    ) -> None:
        super().__init__()
        first, middle = (temporal_kernel, 1) if config.temporal_conv == "first" else (1, temporal_kernel)
        out_channels, eps = width * _EXPANSION["bottleneck"], config.bn_eps
        self.conv1 = ConvBN(in_channels, width, (first, 1, 1), (1, 1, 1), eps=eps)
        self.conv2 = ConvBN(width, width, (middle, 3, 3), stride, eps=eps)
        self.conv3 = ConvBN(width, out_channels, (1, 1, 1), (1, 1, 1), eps=eps, relu=False)
        self.shortcut = _shortcut(in_channels, out_channels, stride, config)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add the shortcut to the three convolutions of (B, C, T, H, W)."""
        return self.relu(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))


def _spacetime_conv(
    in_channels: int,
    out_channels: int,
    mid_channels: int | None,
    kernel: Triple,
    stride: Triple,
    *,
    eps: float,
    relu: bool = True,
) -> nn.Module:
    """Create one full convolution, or one in space and one in time with `mid_channels` between them."""
    if mid_channels is None:
        return ConvBN(in_channels, out_channels, kernel, stride, eps=eps, relu=relu)
    return nn.Sequential(
        ConvBN(in_channels, mid_channels, (1, *kernel[1:]), (1, *stride[1:]), eps=eps),
        ConvBN(mid_channels, out_channels, (kernel[0], 1, 1), (stride[0], 1, 1), eps=eps, relu=relu),
    )


def _shortcut(in_channels: int, out_channels: int, stride: Triple, config: ResNet3DConfig) -> nn.Module:
    if in_channels == out_channels and stride == (1, 1, 1):
        return nn.Identity()
    return ConvBN(in_channels, out_channels, (1, 1, 1), stride, eps=config.bn_eps, relu=False)


class Video3DResNet(TutorialNames, nn.Module):
    """3D residual network with spacetime non-local blocks, on normalised clips (B, 3, T, H, W).

    `Video3DResNet()` has 34 layers of 3x3x3 convolutions and a block after each given stage; `from_config` builds any
    other. Submodules are `stem`, `stem_pool`, `layer1` to `layer4`, `temporal_pool` before `layer2`, and `fc`. A layer
    has residual blocks "0", "1", ..., and `nonlocal{i}` where a non-local block follows residual block i.

    Args:
        num_classes: Number of logits.
        nonlocal_stages: Stages, 1 to 4, with a non-local block after them.
        nonlocal_mode: Which positions attend to each other; see `VideoNonLocalBlock`.

    Raises:
        ValueError: If a stage is unknown.

    Example:
        >>> network = Video3DResNet.from_config(ResNet3DConfig(num_classes=10, width=8)).eval()
        >>> network(torch.randn(1, 3, 8, 32, 32)).shape
        torch.Size([1, 10])
        >>> list(Video3DResNet(num_classes=10, nonlocal_stages=(3,)).nonlocal_layers())
        ['layer3.nonlocal5']
    """

    def __init__(
        self,
        num_classes: int = 400,
        nonlocal_stages: Sequence[int] = (3, 4),
        nonlocal_mode: NonLocalMode = "spacetime",
    ) -> None:
        self._build(stagewise_config(num_classes, nonlocal_stages, nonlocal_mode))

    @classmethod
    def from_config(cls, config: ResNet3DConfig) -> Video3DResNet:
        """Build the network that `config` describes, newly initialised."""
        network = cls.__new__(cls)
        network._build(config)
        return network

    def _build(self, config: ResNet3DConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = _spacetime_conv(
            3, config.width, config.stem_mid_channels, config.stem_kernel, config.stem_stride, eps=config.bn_eps
        )
        pool = config.stem_pool
        self.stem_pool = nn.Identity() if pool is None else nn.MaxPool3d(pool.kernel, pool.stride, pool.padding)
        self.layer1 = self._stage(1)
        pools_time = config.temporal_pool > 1
        self.temporal_pool = nn.MaxPool3d((config.temporal_pool, 1, 1)) if pools_time else nn.Identity()
        self.layer2 = self._stage(2)
        self.layer3 = self._stage(3)
        self.layer4 = self._stage(4)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(self._stage_channels(4), config.num_classes)
        self.reset_parameters()

    def _stage_channels(self, stage: int) -> int:
        return self.config.width * 2 ** (stage - 1) * _EXPANSION[self.config.block]

    def _stage(self, stage: int) -> nn.Sequential:
        """Create a stage: residual blocks named by their number, followed by `nonlocal{number}` where there is one."""
        config = self.config
        block_type = Basic3DBlock if config.block == "basic" else Bottleneck
        kernels = config.temporal_kernels[stage - 1]
        in_channels = config.width if stage == 1 else self._stage_channels(stage - 1)
        out_channels, width = self._stage_channels(stage), config.width * 2 ** (stage - 1)
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(config.blocks_per_stage[stage - 1]):
            stride = config.stage_strides[stage - 1] if i == 0 else (1, 1, 1)
            modules[str(i)] = block_type(in_channels, width, stride, kernels[i % len(kernels)], config)
            in_channels = out_channels
            nonlocal_config = config.nonlocal_blocks.get(f"layer{stage}.{i}")
            if nonlocal_config is not None:
                modules[f"nonlocal{i}"] = VideoNonLocalBlock.from_config(out_channels, nonlocal_config)
        return nn.Sequential(modules)

    def reset_parameters(self) -> None:
        """Initialise the network as He et al. do. Non-local blocks come last, so that each starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm3d):
                module.reset_parameters()
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)
        for block in self.nonlocal_layers().values():
            block.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from clips (B, 3, T, H, W)."""
        return self.head(self.extract_features(x, ["stage4"])["stage4"])

    def head(self, features: Tensor) -> Tensor:
        """Classify the output of `feature_layer` (B, C, T', H', W') -> logits (B, num_classes)."""
        return self.fc(self.dropout(features.mean(dim=(2, 3, 4))))

    def forward_to(self, layer: str, x: Tensor) -> Tensor:
        """Compute the output of "layer3" or "layer4" from clips (B, 3, T, H, W)."""
        stage = {"layer3": "stage3", "layer4": "stage4"}[layer]
        return self.extract_features(x, [stage])[stage]

    def forward_from(self, layer: str, features: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from the output of a layer, as `forward` does after `forward_to`."""
        for name in self.layers_after(layer):
            features = getattr(self, name)(features)
        return self.head(features)

    def layers_after(self, layer: str) -> tuple[str, ...]:
        """Return the names of the layers between `layer` and the head, in the order in which they run."""
        return _LAYERS[_LAYERS.index(layer) + 1 :]

    def extract_features(self, x: Tensor, return_stages: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Compute the outputs of some stages, with their non-local blocks, and nothing after the last of them.

        Args:
            x: Normalised clips (B, 3, T, H, W).
            return_stages: Any of "stage1" to "stage4"; None returns no features.

        Returns:
            Stage -> features (B, C, T', H', W'), in the order in which they are computed.

        Raises:
            ValueError: If a stage is unknown or x is not a batch of clips.
        """
        return_stages = return_stages or ()
        unknown = sorted(set(return_stages) - set(STAGES))
        if unknown:
            raise ValueError(f"return_stages has {unknown}; the stages are {', '.join(STAGES)}.")
        if x.dim() != 5 or x.shape[1] != 3:
            raise ValueError(f"The clip has shape {tuple(x.shape)}; it should be (B, 3, T, H, W).")
        features: dict[str, Tensor] = {}
        if not return_stages:
            return features
        x = self.stem_pool(self.stem(x))
        for stage, layer in zip(STAGES, (self.layer1, self.layer2, self.layer3, self.layer4), strict=True):
            x = layer(self.temporal_pool(x) if stage == "stage2" else x)
            if stage in return_stages:
                features[stage] = x
            if len(features) == len(set(return_stages)):
                break
        return features

    @property
    def feature_layer(self) -> str:
        """Dotted name of the module whose output the classifier pools."""
        return "layer4"

    @property
    def last_stage_input(self) -> str:
        """Dotted name of the module whose output the last stage takes."""
        return "layer3"

    @property
    def head_layer(self) -> str:
        """Dotted name of the linear map to the classes."""
        return "fc"

    def class_activation_map(self, features: Tensor, class_indices: Tensor | Sequence[int]) -> Tensor:
        """Compute how much each cell adds to the logits of some classes. This is exact, since the head is linear.

        A class's map summed over its cells, plus the class's bias `fc.bias[index]`, is its logit in eval mode.

        Args:
            features: Output of `feature_layer`, (B, C, T', H', W').
            class_indices: Class indices, (K,).

        Returns:
            Contributions to the logits, (B, K, T', H', W').

        Raises:
            ValueError: If `class_indices` is not a list of class indices.
        """
        indices = torch.as_tensor(class_indices, device=features.device)
        num_classes = self.config.num_classes
        if indices.dim() != 1 or bool(((indices < 0) | (indices >= num_classes)).any()):
            raise ValueError(f"{class_indices = } should be class indices, shape (K,), from 0 to {num_classes - 1}.")
        num_cells = features[0, 0].numel()
        return torch.einsum("kc,bcthw->bkthw", self.fc.weight[indices], features) / num_cells

    def nonlocal_layers(self) -> dict[str, VideoNonLocalBlock]:
        """Return the non-local blocks by dotted module name, in the order in which they run."""
        return {name: module for name, module in self.named_modules() if isinstance(module, VideoNonLocalBlock)}


def stagewise_config(
    num_classes: int = 400, nonlocal_stages: Sequence[int] = (3, 4), nonlocal_mode: NonLocalMode = "spacetime"
) -> ResNet3DConfig:
    """Return the configuration of 34 layers of 3x3x3 convolutions with a block after each of some stages, 1 to 4."""
    plain = ResNet3DConfig(num_classes)
    outside = [stage for stage in nonlocal_stages if stage not in (1, 2, 3, 4)]
    if outside:
        raise ValueError(f"nonlocal_stages = {list(nonlocal_stages)} has {outside}; the stages are 1, 2, 3 and 4.")
    last_blocks = [f"layer{stage}.{plain.blocks_per_stage[stage - 1] - 1}" for stage in nonlocal_stages]
    return ResNet3DConfig(num_classes, nonlocal_blocks=dict.fromkeys(last_blocks, NonLocalConfig(mode=nonlocal_mode)))
