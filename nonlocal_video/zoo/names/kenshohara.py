"""Names in the checkpoints of 3D-ResNets-PyTorch (kenshohara), which are those of torchvision's image ResNets."""

from __future__ import annotations

from nonlocal_video.models.resnet3d import ResNet3DConfig
from nonlocal_video.zoo.layout import Layer, Layout


def layer_name(layer: Layer, config: ResNet3DConfig) -> str:
    """Return their name of a layer; see `Layout.layer_name`."""
    block = f"layer{layer.stage}.{layer.block}"
    match layer.kind:
        case "stem":
            return f"{layer.part}1"
        case "conv":
            return f"{block}.{layer.part}{layer.number}"
        case "shortcut":
            return f"{block}.downsample.{1 if layer.part == 'bn' else 0}"
        case "classifier":
            return "fc"
        case "nonlocal":
            raise ValueError("3D-ResNets-PyTorch has no non-local blocks.")


LAYOUT = Layout("3D-ResNets-PyTorch", layer_name)
