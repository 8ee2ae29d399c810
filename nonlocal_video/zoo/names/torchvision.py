"""Names in torchvision's video checkpoints: r3d_18, mc3_18 and r2plus1d_18."""

from __future__ import annotations

from nonlocal_video.models.resnet3d import ResNet3DConfig
from nonlocal_video.zoo.layout import Layer, Layout


def _layer_name(layer: Layer, config: ResNet3DConfig) -> str:
    # Each Sequential is conv, bn, relu; a (2+1)D stem continues with 3 and 4, while inside a residual block the two
    # convolutions and the batch norm between them form a Sequential of their own, which the last batch norm follows.
    index = 1 if layer.part == "bn" else 0
    block = f"layer{layer.stage}.{layer.block}"
    match layer.kind:
        case "stem":
            return f"stem.{index + 3 * (layer.half or 0)}"
        case "conv":
            inner = {(0, "conv"): "0.0", (0, "bn"): "0.1", (1, "conv"): "0.3", (1, "bn"): "1"}
            child = index if layer.half is None else inner[layer.half, layer.part]
            return f"{block}.conv{layer.number}.{child}"
        case "shortcut":
            return f"{block}.downsample.{index}"
        case "classifier":
            return "fc"
        case "nonlocal":
            raise ValueError("torchvision's video networks have no non-local blocks.")


LAYOUT = Layout("torchvision", _layer_name)
