"""Export of our networks under the parameter names of PySlowFast or MMAction2."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from nonlocal_video.errors import ModelError
from nonlocal_video.io import atomic_write
from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet
from nonlocal_video.zoo.catalogue import load_network
from nonlocal_video.zoo.names import mmaction2, pyslowfast

_LAYOUTS = {"pyslowfast": (pyslowfast.LAYOUT, "model_state"), "mmaction2": (mmaction2.LAYOUT, "state_dict")}

_TYPES = {
    "pyslowfast": ("embedded_gaussian", "dot_product"),
    "mmaction2": ("embedded_gaussian", "dot_product", "gaussian"),
}
_SCALES: dict[str, tuple[object, ...]] = {"pyslowfast": ("inverse_sqrt",), "mmaction2": ("inverse_sqrt", None)}


def export_state(model: str | Path, output: str | Path, *, layout: Literal["pyslowfast", "mmaction2"]) -> Path:
    """Write a 3D ResNet as a PyTorch file for another project: {"model_state": ...} or {"state_dict": ...}.

    Args:
        model: A catalogue name whose weights are here, or a safetensors file of this project.
        output: The file to write, by convention `.pyth` (PySlowFast) or `.pth` (MMAction2).
        layout: Project whose names to use.

    Returns:
        `output`.

    Raises:
        ModelError: If the network is not a 3D ResNet, or that project's network of the same shapes computes something
            else: under its names the results would be wrong without any error.
    """
    if layout not in _LAYOUTS:
        raise ModelError(f"layout = {layout!r} should be one of {', '.join(_LAYOUTS)}.")
    output = Path(output)
    if not output.absolute().parent.is_dir():
        raise ModelError(f"There is no folder {output.absolute().parent} to write {output.name} to; make it first.")
    network, card = load_network(model)
    if not isinstance(network, Video3DResNet):
        raise ModelError(f"{card.name!r} is an {card.architecture}; {layout} has names for 3D ResNets only.")
    obstacles = _obstacles(network.config, layout)
    if obstacles:
        raise ModelError(f"{card.name!r} cannot be written for {layout}: {'; '.join(obstacles)}.")
    names, wrapper = _LAYOUTS[layout]
    state = network.state_dict()
    renamed = {theirs: state[ours] for ours, theirs in names.names(state, network.config).items()}
    with atomic_write(output) as file:
        torch.save({wrapper: renamed}, file)
    return output


def _obstacles(config: ResNet3DConfig, layout: str) -> list[str]:
    """Return, as sentences, what the other project's network would compute differently from the same tensors."""
    found = []
    if config.block != "bottleneck" or config.temporal_conv != "first":
        found.append("its residual blocks are not bottlenecks with the convolution along time first")
    if config.stem_mid_channels is not None:
        found.append("its stem is a (2+1)D convolution")
    if config.stem_pool is None or config.stem_pool.padding != (0, 1, 1):
        found.append("its first pooling has another padding than (0, 1, 1)")
    if layout == "pyslowfast" and config.stem_stride[0] != 1:
        found.append("its stem has a stride in time")
    for name, block in config.nonlocal_blocks.items():
        order = "pool_conv" if layout == "pyslowfast" else "conv_pool"
        if block.sub_sample and block.pool_order != order:
            found.append(f"the non-local block after {name} pools in the order {block.pool_order} instead of {order}")
        if block.out_bias != (layout == "pyslowfast"):
            found.append(f"the non-local block after {name} has {'a' if block.out_bias else 'no'} bias in W")
        if block.nonlocal_type not in _TYPES[layout]:
            found.append(f"the non-local block after {name} is of the type {block.nonlocal_type}")
        if block.nonlocal_type == "embedded_gaussian" and block.scale not in _SCALES[layout]:
            found.append(f"the softmax of the non-local block after {name} has the scale {block.scale}")
        if block.mode != "spacetime" or not block.bn_layer or not block.embed_bias:
            found.append(f"the non-local block after {name} is not one over space and time with batch norm and biases")
    return found
