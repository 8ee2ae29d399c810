"""Names in PyTorchVideo's checkpoints (`.pyth`): slow_r50, i3d_r50 and c2d_r50."""

from __future__ import annotations

from nonlocal_video.models.resnet3d import ResNet3DConfig
from nonlocal_video.zoo.layout import Layer, Layout


def _layer_name(layer: Layer, config: ResNet3DConfig) -> str:
    pools_time = config.temporal_pool > 1  # the pooling between stages 1 and 2 is a block without parameters
    number = layer.stage + (1 if pools_time and layer.stage > 1 else 0)
    part = "norm" if layer.part == "bn" else "conv"
    block = f"blocks.{number}.res_blocks.{layer.block}"
    match layer.kind:
        case "stem":
            return f"blocks.0.{part}"
        case "conv":
            return f"{block}.branch2.{part}_{layer.letter}"
        case "shortcut":
            return f"{block}.branch1_{part}"
        case "classifier":
            return f"blocks.{6 if pools_time else 5}.proj"
        case "nonlocal":
            raise ValueError("PyTorchVideo's published networks have no non-local blocks.")


LAYOUT = Layout("PyTorchVideo", _layer_name)
