"""Names of blobs in Caffe2 pickles: video-nonlocal-net's own, and those that PySlowFast publishes."""

from __future__ import annotations

import re

from nonlocal_video.models.resnet3d import ResNet3DConfig
from nonlocal_video.zoo.layout import Layer, Layout

IGNORED = re.compile(r".*_momentum|lr|model_iter")
"""State that the optimiser stores with the weights."""
STATISTICS = ("running_mean", "running_var")
"""Suffixes absent from affine models, whose batch norms are a gain and a bias alone."""

_NONLOCAL = {"theta": "theta", "phi": "phi", "g": "g", "W": "out", "bn": "bn"}
_CONVOLUTION = {"weight": "w", "bias": "b"}
_BATCH_NORM = {
    "weight": "s",
    "bias": "b",
    "running_mean": "rm",
    "running_var": "riv",  # the variance itself, despite the i
}


def _layer_name(layer: Layer, config: ResNet3DConfig) -> str:
    stage = layer.stage + 1  # res2 to res5
    bn = "_bn" if layer.part == "bn" else ""
    match layer.kind:
        case "stem":
            return "res_conv1_bn" if bn else "conv1"
        case "conv":
            return f"res{stage}_{layer.block}_branch2{layer.letter}{bn}"
        case "shortcut":
            return f"res{stage}_{layer.block}_branch1{bn}"
        case "nonlocal":
            return f"nonlocal_conv{stage}_{layer.block}_{_NONLOCAL[layer.part]}"
        case "classifier":
            return "pred"


def _tensor_name(layer_name: str, layer: Layer, tensor: str) -> str | None:
    suffix = (_BATCH_NORM if layer.part == "bn" else _CONVOLUTION).get(tensor)
    return None if suffix is None else f"{layer_name}_{suffix}"


LAYOUT = Layout("Caffe2", _layer_name, _tensor_name)
