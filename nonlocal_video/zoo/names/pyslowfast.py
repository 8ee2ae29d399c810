"""Names in PySlowFast's PyTorch checkpoints (facebookresearch/SlowFast, `.pyth`): single-pathway I3D, C2D and Slow."""

from __future__ import annotations

from nonlocal_video.models.resnet3d import ResNet3DConfig
from nonlocal_video.zoo.layout import Layer, Layout

_NONLOCAL = {"theta": "conv_theta", "phi": "conv_phi", "g": "conv_g", "W": "conv_out", "bn": "bn"}


def _layer_name(layer: Layer, config: ResNet3DConfig) -> str:
    stage = f"s{layer.stage + 1}.pathway0"  # s1 is the stem
    bn = "_bn" if layer.part == "bn" else ""
    match layer.kind:
        case "stem":
            return f"s1.pathway0_stem.{layer.part}"
        case "conv":
            return f"{stage}_res{layer.block}.branch2.{layer.letter}{bn}"
        case "shortcut":
            return f"{stage}_res{layer.block}.branch1{bn}"
        case "nonlocal":
            return f"{stage}_nonlocal{layer.block}.{_NONLOCAL[layer.part]}"
        case "classifier":
            return "head.projection"


LAYOUT = Layout("PySlowFast", _layer_name)
