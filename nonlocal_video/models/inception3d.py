"""Inception-I3D: GoogLeNet inflated to 3D, with non-local blocks after any of its endpoints.

Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, figure 3; endpoint names and layer widths are those
of DeepMind's published TensorFlow code, so that its weights map one to one. The code reads from top to bottom.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.blocks.video import VideoNonLocalBlock
from nonlocal_video.errors import UsageError

Triple = tuple[int, int, int]

# Every endpoint in the order in which it is computed. Mixed_*: channels of (1x1, 3x3 reduction, 3x3, second 3x3
# reduction, second 3x3, after the pool); the module's output has the sum of the first, third, fifth and sixth.
INCEPTION_WIDTHS: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
ENDPOINTS: tuple[str, ...] = (
    "Conv3d_1a_7x7",
    "MaxPool3d_2a_3x3",
    "Conv3d_2b_1x1",
    "Conv3d_2c_3x3",
    "MaxPool3d_3a_3x3",
    "Mixed_3b",
    "Mixed_3c",
    "MaxPool3d_4a_3x3",
    "Mixed_4b",
    "Mixed_4c",
    "Mixed_4d",
    "Mixed_4e",
    "Mixed_4f",
    "MaxPool3d_5a_2x2",
    "Mixed_5b",
    "Mixed_5c",
)
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 1e-3  # the original code decays its running statistics by 0.999


@dataclass(frozen=True)
class InceptionI3DConfig:
    """Configuration of an Inception-I3D.

    Raises:
        ValueError: If a number is out of range or an endpoint is unknown.
    """

    num_classes: int = 400
    """Number of logits."""
    nonlocal_blocks: dict[str, NonLocalConfig] = field(default_factory=dict)
    """Endpoint name -> the non-local block right after it."""
    dropout: float = 0.5
    """Probability of dropping a pooled feature before the classifier in training."""

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"num_classes = {self.num_classes} should be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout} should be at least 0 and below 1.")
        unknown = sorted(set(self.nonlocal_blocks) - set(ENDPOINTS))
        if unknown:
            raise ValueError(f"nonlocal_blocks names {unknown}; a block can follow any of {list(ENDPOINTS)}.")


def same_padding(input_size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Compute TensorFlow's SAME padding along one axis, which gives ceil(input_size / stride) output cells.

    If the total is odd, the extra cell goes to the end. Example: 224 cells, kernel 7, stride 2: 112 outputs span
    111 * 2 + 7 = 229 cells, 5 more than there are, so 2 before and 3 after. PyTorch's symmetric 3 and 3 would give the
    same output size with every window one pixel to the left, which the trained weights do not expect.

    Returns:
        Numbers of cells to add before and after.
    """
    num_outputs = -(-input_size // stride)
    total = max((num_outputs - 1) * stride + kernel - input_size, 0)
    return total // 2, total - total // 2


def pad_same(x: torch.Tensor, kernel: Triple, stride: Triple, value: float) -> torch.Tensor:
    """Pad (B, C, T, H, W) on T, H and W by `same_padding`."""
    padding: list[int] = []
    for axis in (2, 1, 0):  # F.pad counts from the last axis
        padding.extend(same_padding(x.shape[2 + axis], kernel[axis], stride[axis]))
    return F.pad(x, padding, value=value) if any(padding) else x


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, ReLU: (B, C, T, H, W) -> (B, C', ceil(T/s), ceil(H/s), ceil(W/s)).

    The original batch norm has a bias and no gain. This one has a gain, equal to 1 in the converted weights: it costs
    7,000 of 12 million parameters, and all code for `nn.BatchNorm3d` (folding, export, fine-tuning) then works.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Triple = (1, 1, 1), stride: Triple = (1, 1, 1)):
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        # At stride 1 an odd kernel's SAME padding is symmetric at every size, so the convolution can pad without a
        # copy.
        self.pads_itself = stride == (1, 1, 1)
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2) if self.pads_itself else (0, 0, 0)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, normalise and rectify (B, C, T, H, W)."""
        if not self.pads_itself:
            x = pad_same(x, self.kernel, self.stride, value=0.0)
        return self.relu(self.bn(self.conv(x)))


class MaxPoolSame(nn.Module):
    """Max pooling with SAME padding that never wins: (B, C, T, H, W) -> (B, C, ceil(T/s), ceil(H/s), ceil(W/s)).

    Zeros would do after a ReLU, but a trained non-local block before the pooling can make features negative.
    """

    def __init__(self, kernel: Triple, stride: Triple):
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool (B, C, T, H, W)."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride, value=float("-inf")), self.kernel, self.stride)

    def extra_repr(self) -> str:
        """Return the kernel and the stride for `repr`."""
        return f"kernel={self.kernel}, stride={self.stride}"


class InceptionModule(nn.Module):
    """Four parallel branches, concatenated on channels (figure 3, right): (B, C, T, H, W) -> (B, C', T, H, W)."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]):
        super().__init__()
        cube = (3, 3, 3)
        self.branch_0 = ConvUnit(in_channels, widths[0])
        self.branch_1 = nn.Sequential(ConvUnit(in_channels, widths[1]), ConvUnit(widths[1], widths[2], cube))
        self.branch_2 = nn.Sequential(ConvUnit(in_channels, widths[3]), ConvUnit(widths[3], widths[4], cube))
        self.branch_3 = nn.Sequential(nn.MaxPool3d(cube, stride=1, padding=1), ConvUnit(in_channels, widths[5]))
        self.out_channels = widths[0] + widths[2] + widths[4] + widths[5]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the four branches on (B, C, T, H, W)."""
        return torch.cat([self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(x)], dim=1)


class InceptionI3D(nn.Module):
    """Inception-I3D on RGB clips scaled to [-1, 1] (Carreira & Zisserman, CVPR 2017).

    The input is (B, 3, T, H, W) of any size; the published weights were trained on 64 frames of 224x224 at 25 frames/s.
    All layers use SAME padding, so the last features are (B, 1024, ceil(T/8), ceil(H/32), ceil(W/32)).

    Each endpoint is a submodule of its own name; the block after endpoint E is the submodule `nonlocal_E`.

    Example:
        >>> config = InceptionI3DConfig(num_classes=10, nonlocal_blocks={"Mixed_4f": NonLocalConfig()})
        >>> network = InceptionI3D(config).eval()
        >>> network(torch.randn(1, 3, 8, 32, 32)).shape
        torch.Size([1, 10])
        >>> list(network.nonlocal_layers())
        ['nonlocal_Mixed_4f']
    """

    def __init__(self, config: InceptionI3DConfig | None = None):
        super().__init__()
        self.config = config = config or InceptionI3DConfig()
        layers: dict[str, tuple[nn.Module, int]] = {  # endpoint -> layer, output channels
            "Conv3d_1a_7x7": (ConvUnit(3, 64, kernel=(7, 7, 7), stride=(2, 2, 2)), 64),
            "MaxPool3d_2a_3x3": (MaxPoolSame(kernel=(1, 3, 3), stride=(1, 2, 2)), 64),
            "Conv3d_2b_1x1": (ConvUnit(64, 64), 64),
            "Conv3d_2c_3x3": (ConvUnit(64, 192, kernel=(3, 3, 3)), 192),
            "MaxPool3d_3a_3x3": (MaxPoolSame(kernel=(1, 3, 3), stride=(1, 2, 2)), 192),
        }
        channels = 192
        for endpoint in ENDPOINTS[len(layers) :]:
            layer: nn.Module
            if endpoint == "MaxPool3d_4a_3x3":
                layer = MaxPoolSame(kernel=(3, 3, 3), stride=(2, 2, 2))
            elif endpoint == "MaxPool3d_5a_2x2":
                layer = MaxPoolSame(kernel=(2, 2, 2), stride=(2, 2, 2))
            else:
                layer = InceptionModule(channels, INCEPTION_WIDTHS[endpoint])
                channels = layer.out_channels
            layers[endpoint] = (layer, channels)

        self.layer_names: list[str] = []
        for endpoint, (layer, out_channels) in layers.items():
            self._append(endpoint, layer)
            block = config.nonlocal_blocks.get(endpoint)
            if block is not None:
                self._append(f"nonlocal_{endpoint}", VideoNonLocalBlock.from_config(out_channels, block))
        self.dropout = nn.Dropout(config.dropout)
        self.logits = nn.Conv3d(channels, config.num_classes, kernel_size=1)

    def _append(self, name: str, layer: nn.Module) -> None:
        self.add_module(name, layer)
        self.layer_names.append(name)

    @property
    def feature_layer(self) -> str:
        """Dotted name of the module whose output the head takes."""
        return self.layer_names[-1]

    @property
    def last_stage_input(self) -> str:
        """Dotted name of the module whose output the last stage (Mixed_5b and Mixed_5c) takes."""
        return "MaxPool3d_5a_2x2"

    @property
    def head_layer(self) -> str:
        """Dotted name of the linear map to the classes."""
        return "logits"

    def nonlocal_layers(self) -> dict[str, VideoNonLocalBlock]:
        """Return the non-local blocks by dotted module name, in the order in which they run."""
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, VideoNonLocalBlock)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, num_classes) from clips (B, 3, T, H, W)."""
        return self.head(self.forward_to(self.feature_layer, x))

    def forward_to(self, layer: str, x: torch.Tensor) -> torch.Tensor:
        """Compute the output of a layer from clips (B, 3, T, H, W)."""
        return self.extract_features(x, [layer])[layer]

    def forward_from(self, layer: str, features: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, num_classes) from the output of a layer, as `forward` does after `forward_to`."""
        for name in self.layers_after(layer):
            features = self.get_submodule(name)(features)
        return self.head(features)

    def layers_after(self, layer: str) -> tuple[str, ...]:
        """Return the names of the layers between `layer` and the head, in the order in which they run."""
        return tuple(self.layer_names[self.layer_names.index(layer) + 1 :])

    def extract_features(self, x: torch.Tensor, endpoints: Iterable[str]) -> dict[str, torch.Tensor]:
        """Compute the outputs of the named layers, and nothing after the last of them.

        Args:
            x: Clips (B, 3, T, H, W).
            endpoints: Any of `layer_names`: endpoints, and `nonlocal_E` for the output of the block after endpoint E.

        Returns:
            Layer name -> features (B, C, T', H', W'), in the order in which they are computed.

        Raises:
            UsageError: If a name is unknown or x is not a batch of clips.
        """
        wanted = set(endpoints)
        unknown = sorted(wanted - set(self.layer_names))
        if unknown:
            raise UsageError(f"endpoints {unknown} do not exist in this network; it has {self.layer_names}.")
        if x.ndim != 5 or x.shape[1] != 3:
            raise UsageError(f"the clip has shape {tuple(x.shape)}; it should be (batch, 3, frames, height, width).")
        features: dict[str, torch.Tensor] = {}
        for name in self.layer_names:
            if len(features) == len(wanted):
                break
            x = self.get_submodule(name)(x)
            if name in wanted:
                features[name] = x
        return features

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Classify features (B, 1024, T', H', W') -> logits (B, num_classes).

        The original code averages windows of 2 frames x 7 x 7 cells with stride 1, classifies each, and averages over
        time. 7 x 7 is the whole map at the 224 pixels that it was trained on, so here the whole map of each frame is
        averaged at any size. A clip of up to 8 frames ends in one feature frame, which forms no pair and is classified
        by itself.
        """
        frames = features.mean(dim=(3, 4), keepdim=True)  # (B, 1024, T', 1, 1)
        if frames.shape[2] > 1:
            frames = (frames[:, :, :-1] + frames[:, :, 1:]) * 0.5  # (B, 1024, T' - 1, 1, 1)
        return self.logits(self.dropout(frames)).mean(dim=(2, 3, 4))

    def pool_features(self, features: torch.Tensor) -> torch.Tensor:
        """Average features (B, 1024, T', H', W') as the head does -> (B, 1024), from which the logits follow linearly.

        As the head averages pairs of frames, the first and the last count half.
        """
        frames = features.mean(dim=(3, 4))
        if frames.shape[2] > 1:
            frames = (frames[:, :, :-1] + frames[:, :, 1:]) * 0.5
        return frames.mean(dim=2)

    def class_activation_map(self, features: torch.Tensor, class_indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Compute how much each cell adds to the logits of some classes. This is exact, since the head is linear.

        A class's map summed over its cells, plus the class's bias `logits.bias[index]`, is its logit. The first and
        last feature frames count half, since each is in one of the head's pairs of frames and the others are in two.

        Args:
            features: Output of `feature_layer`, (B, 1024, T', H', W').
            class_indices: Class indices, (K,).

        Returns:
            Contributions to the logits, (B, K, T', H', W').

        Raises:
            UsageError: If `class_indices` is not a list of class indices.
        """
        indices = torch.as_tensor(class_indices, device=features.device)
        last = self.logits.out_channels - 1
        if indices.ndim != 1 or bool(((indices < 0) | (indices > last)).any()):
            raise UsageError(f"{class_indices = } should be class indices, shape (K,), from 0 to {last}.")
        _, _, num_frames, height, width = features.shape
        share = features.new_full((num_frames,), 1.0 / (max(num_frames - 1, 1) * height * width))
        if num_frames > 1:
            share[0] *= 0.5
            share[-1] *= 0.5
        evidence = F.conv3d(features, self.logits.weight[indices])  # (B, K, T', H', W')
        return evidence * share[:, None, None]
