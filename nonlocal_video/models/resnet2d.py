"""A residual network on images with non-local blocks (Wang et al., CVPR 2018, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from nonlocal_video.blocks import NonLocalBlock, NonLocalType


class BasicBlock(resnet.BasicBlock):
    """torchvision's two 3x3 convolutions and a shortcut, with their batch norms declared.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution and of the shortcut.
        downsample: The shortcut; None is a 1x1 convolution with batch norm where channels or sizes change, else the
            input itself.
        torchvision_arguments: What else torchvision's `ResNet` passes to its blocks, by position ...
        torchvision_keywords: ... and by name.

    Example:
        >>> BasicBlock(8, 16, stride=2)(torch.randn(1, 8, 8, 8)).shape
        torch.Size([1, 16, 4, 4])
    """

    conv_bn_pairs: ClassVar[tuple[tuple[str, str], ...]] = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        *torchvision_arguments: Any,
        **torchvision_keywords: Any,
    ) -> None:
        if downsample is None and (stride != 1 or in_channels != out_channels):
            downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        super().__init__(in_channels, out_channels, stride, downsample, *torchvision_arguments, **torchvision_keywords)


class NonLocalNet(resnet.ResNet):
    """torchvision's ResNet-34 (basic blocks 3-4-6-3) with a 2D non-local block after each given stage.

    Layer names are torchvision's, so its ImageNet weights load with `strict=False`. The non-local blocks are
    `nonlocal_blocks.stage2` and so on; each is the identity until it is trained.

    Args:
        num_classes: Number of logits.
        nonlocal_stages: Stages, 1 to 4, with a block after them.
        nonlocal_type: The pairwise function of the blocks.

    Attributes:
        nonlocal_blocks: "stage3" -> the block after stage 3; another module put there is the one that runs.

    Raises:
        ValueError: If a stage is unknown.

    Example:
        >>> network = NonLocalNet(num_classes=10, nonlocal_stages=(3,)).eval()
        >>> logits, maps = network(torch.randn(1, 3, 64, 64), return_nl_maps=True)
        >>> logits.shape, maps["stage3"].shape
        (torch.Size([1, 10]), torch.Size([1, 16, 4]))
    """

    conv_bn_pairs: ClassVar[tuple[tuple[str, str], ...]] = (("conv1", "bn1"),)

    def __init__(
        self,
        num_classes: int = 1000,
        nonlocal_stages: Sequence[int] = (2, 3, 4),
        nonlocal_type: NonLocalType = "embedded_gaussian",
    ) -> None:
        super().__init__(BasicBlock, [3, 4, 6, 3], num_classes=num_classes)
        outside = [stage for stage in nonlocal_stages if stage not in (1, 2, 3, 4)]
        if outside:
            raise ValueError(f"nonlocal_stages = {list(nonlocal_stages)} has {outside}; the stages are 1, 2, 3 and 4.")
        self.num_classes, self.nonlocal_type = num_classes, nonlocal_type
        self.nonlocal_stages = sorted(set(nonlocal_stages))
        # Made after torchvision has initialised every convolution, so nothing overwrites their zero initialisation.
        self.nonlocal_blocks = nn.ModuleDict(
            {
                f"stage{stage}": NonLocalBlock(64 * 2 ** (stage - 1), dimension=2, nonlocal_type=nonlocal_type)
                for stage in self.nonlocal_stages
            }
        )

    def _initialize_weights(self) -> None:
        """Make the backbone new, as torchvision does; the non-local blocks stay as they are, new ones the identity."""
        blocks = set(self.nonlocal_blocks.modules())
        for module in self.modules():
            if module in blocks:
                continue
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d | nn.Linear):
                module.reset_parameters()

    @overload
    def forward(self, x: Tensor, return_nl_maps: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, return_nl_maps: Literal[True]) -> tuple[Tensor, dict[str, Tensor]]: ...

    def forward(self, x: Tensor, return_nl_maps: bool = False) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Classify images.

        Args:
            x: Images (B, 3, H, W).
            return_nl_maps: Whether to return the attention map of every block as well.

        Returns:
            Logits (B, num_classes); or these and stage -> map (B, N, M), with N positions and M pooled keys of the
            stage's output.
        """
        blocks, maps = dict(self.nonlocal_blocks.items()), dict[str, Tensor]()
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), 1):
            x, name = layer(x), f"stage{stage}"
            block = blocks.get(name)
            if return_nl_maps and isinstance(block, NonLocalBlock):  # folding may have removed a block
                x, maps[name] = block(x, return_nl_map=True)
            elif block is not None:
                x = block(x)
        logits = self.fc(torch.flatten(self.avgpool(x), 1))  # (B, C, H', W') -> (B, C) -> (B, num_classes)
        return (logits, maps) if return_nl_maps else logits

    def get_model_complexity(self) -> dict[str, Any]:
        """Count parameters in all, in the backbone and in the blocks, and the bytes of parameters and buffers.

        `nonlocal_ratio` is the blocks' share of all parameters, `model_size_mb` is in 10^6 bytes.
        """
        total = sum(parameter.numel() for parameter in self.parameters())
        in_blocks = sum(parameter.numel() for parameter in self.nonlocal_blocks.parameters())
        size_bytes = sum(t.numel() * t.element_size() for t in [*self.parameters(), *self.buffers()])
        return {
            "total_parameters": total,
            "backbone_parameters": total - in_blocks,
            "nonlocal_parameters": in_blocks,
            "nonlocal_ratio": in_blocks / total,
            "size_bytes": size_bytes,
            "model_size_mb": size_bytes / 1e6,
            "nonlocal_stages": self.nonlocal_stages,
            "nonlocal_type": self.nonlocal_type,
        }
