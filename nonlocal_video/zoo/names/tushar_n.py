"""Names in Tushar-N's PyTorch port of video-nonlocal-net (pytorch-resnet3d): Caffe2 weights, converted."""

from __future__ import annotations

from nonlocal_video.models.resnet3d import ResNet3DConfig
from nonlocal_video.zoo.layout import Layer, Layout
from nonlocal_video.zoo.names import kenshohara

_NONLOCAL = {"theta": "theta", "phi": "phi", "g": "g", "W": "out", "bn": "bn"}


def _layer_name(layer: Layer, config: ResNet3DConfig) -> str:
    if layer.kind == "nonlocal":
        return f"layer{layer.stage}.{layer.block}.nl.{_NONLOCAL[layer.part]}"
    return kenshohara.layer_name(layer, config)  # both trunks are named as torchvision's image ResNets are


LAYOUT = Layout("Tushar-N's port", _layer_name)
