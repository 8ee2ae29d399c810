"""Small networks for these tests; their answers mean nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from nonlocal_video.blocks import NonLocalConfig
from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet

PLAIN = NonLocalConfig()
TINY = ResNet3DConfig(num_classes=5, blocks_per_stage=(1, 1, 1, 1), width=4)


def tiny_network(
    nonlocal_config: NonLocalConfig | None = PLAIN, *, place: str = "layer3.0", trained: bool = False, **changes: Any
) -> Video3DResNet:
    """A Video3DResNet of four residual blocks, with one non-local block unless `nonlocal_config` is None.

    Args:
        nonlocal_config: The non-local block.
        place: What it follows.
        trained: Give it random weights that are not the identity.
        changes: Other fields of the configuration.
    """
    config = replace(TINY, nonlocal_blocks={place: nonlocal_config} if nonlocal_config else {}, **changes)
    network = Video3DResNet.from_config(config).eval()
    if trained:
        with torch.no_grad():
            for module in network.nonlocal_layers().values():
                for parameter in module.parameters():
                    parameter.normal_(std=0.5)
    return network
