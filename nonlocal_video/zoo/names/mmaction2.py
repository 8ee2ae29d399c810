"""Names in MMAction2's checkpoints, 0.x and 1.x: I3D and SlowOnly, plain or with mmcv's NonLocal3d."""

from __future__ import annotations

from nonlocal_video.models.resnet3d import ResNet3DConfig
from nonlocal_video.zoo.layout import Layer, Layout

_NONLOCAL = {"theta": "theta.conv", "W": "conv_out.conv", "bn": "conv_out.bn"}


def _layer_name(layer: Layer, config: ResNet3DConfig) -> str:
    block = f"backbone.layer{layer.stage}.{layer.block}"
    match layer.kind:
        case "stem":
            return f"backbone.conv1.{layer.part}"
        case "conv":
            return f"{block}.conv{layer.number}.{layer.part}"
        case "shortcut":
            return f"{block}.downsample.{layer.part}"
        case "nonlocal":
            if layer.part in ("g", "phi"):
                # With pooling the convolution is the first of a Sequential.
                sub_sample = config.nonlocal_blocks[f"layer{layer.stage}.{layer.block}"].sub_sample
                return f"{block}.non_local_block.{layer.part}{'.0' if sub_sample else ''}.conv"
            return f"{block}.non_local_block.{_NONLOCAL[layer.part]}"
        case "classifier":
            return "cls_head.fc_cls"


LAYOUT = Layout("MMAction2", _layer_name)
