"""Small networks whose every block tells in the logits, and their cards, for the tests of several folders."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.util import find_spec

import numpy as np
import torch
from absent import needs
from numpy.typing import NDArray
from torch import nn

from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.blocks.nonlocal_block import NonLocalBlock
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.checkpoint import build_network

# Not `importorskip`, which would import it with its telemetry.
needs_openvino = needs(find_spec("openvino"), "pip install openvino")

SPEC = InputSpec(
    num_frames=8, frames_per_second=10.0, short_side=40, crop=36, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)
)
PLAIN: dict[str, object] = {"num_classes": 7, "width": 6, "blocks_per_stage": [1, 1, 1, 1]}

KERNELS = {
    "layer1.0": NonLocalConfig(nonlocal_type="concatenation"),
    "layer2.0": NonLocalConfig(nonlocal_type="gaussian", bn_layer=False),
    "layer3.0": NonLocalConfig(nonlocal_type="dot_product", sub_sample=False),
    "layer4.0": NonLocalConfig(nonlocal_type="embedded_gaussian", embed_bias=False, out_bias=False),
}
MODES = {
    "layer1.0": NonLocalConfig(mode="space_only", nonlocal_type="concatenation", pool_order="pool_conv"),
    "layer2.0": NonLocalConfig(temporal_groups=2, pool_order="pool_conv", scale="inverse_sqrt"),
    "layer3.0": NonLocalConfig(mode="time_only", nonlocal_type="dot_product"),
    "layer4.0": NonLocalConfig(mode="time_only", temporal_groups=2),
}


def resnet_card(blocks: dict[str, NonLocalConfig], **changes: object) -> ModelCard:
    """A 3D ResNet's card; `changes` are of its configuration."""
    config = PLAIN | {"nonlocal_blocks": {name: asdict(block) for name, block in blocks.items()}} | changes
    labels = tuple(f"action “{index}” & <more>" for index in range(7))
    return ModelCard(name="small", architecture="resnet3d", config=config, input=SPEC, labels=labels)


def inception_card() -> ModelCard:
    """Inception-I3D, its sizes odd in many places, where SAME padding has two different sides."""
    return ModelCard(
        name="inception",
        architecture="inception_i3d",
        config={"num_classes": 5, "nonlocal_blocks": {"Mixed_3b": asdict(NonLocalConfig(inter_channels=8))}},
        input=replace(SPEC, num_frames=18, crop=40),
        labels=tuple("abcde"),
    )


def random_network(card: ModelCard) -> nn.Module:
    """A network of a card, in eval mode, whose batch norms and non-local blocks do something."""
    network = build_network(card).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
                module.weight.uniform_(0.5, 1.5)
            if isinstance(module, NonLocalBlock):
                for parameter in (p for child in (module.g, module.W) for p in child.parameters()):
                    parameter.normal_(std=0.5)
    return network


def clips_of(card: ModelCard, count: int) -> NDArray[np.float32]:
    """Any clips that the network takes."""
    return np.random.default_rng(5).normal(size=(count, 3, *size_of(card))).astype(np.float32)


def size_of(card: ModelCard) -> tuple[int, int, int]:
    return card.input.num_frames, card.input.crop, card.input.crop


def logits_of(network: nn.Module, clips: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: NDArray[np.float32] = network(torch.from_numpy(clips)).numpy()
    return logits


def assert_every_block_tells(network: nn.Module, clips: NDArray[np.float32]) -> None:
    """A comparison of logits that no block can change would compare nothing."""
    expected = logits_of(network, clips)
    for block in network.modules():
        if isinstance(block, NonLocalBlock):
            block.gate = 0.0
            assert np.abs(logits_of(network, clips) - expected).max() > 0.001 * np.abs(expected).max()
            block.gate = 1.0
