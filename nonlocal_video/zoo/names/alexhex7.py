"""Single blocks of AlexHex7's Non-local_pytorch, read from the state dict of its NONLocalBlock1D, 2D or 3D.

The parameter names show the dimension, the channels, pooling and batch norm, but not the kernel: files of an embedded
Gaussian and of a dot-product block look alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import torch

from nonlocal_video.blocks import NonLocalBlock, NonLocalType
from nonlocal_video.errors import ModelError
from nonlocal_video.zoo.weights_file import read_weights_file


def read_block(path: str | Path, *, nonlocal_type: NonLocalType) -> NonLocalBlock:
    """Read one block: keys pooled after phi and g, no scale, biases everywhere.

    Args:
        path: A file of `torch.save(block.state_dict(), path)`; every name may have the prefix `module.`.
        nonlocal_type: Which of its four files (`lib/non_local_*.py`) the block is from.

    Returns:
        The block with the file's weights, in eval mode.

    Raises:
        ModelError: If the file cannot be read, or is not such a block; the message lists the differences.
    """
    file = read_weights_file(path)
    sub_sample, bn_layer = "g.0.weight" in file.tensors, "W.1.weight" in file.tensors
    g = file.tensors.get("g.0.weight" if sub_sample else "g.weight")
    if g is None or g.dim() not in (3, 4, 5):
        raise ModelError(
            f"{file.path} is not a block of Non-local_pytorch: it has no convolution g.weight or g.0.weight, but "
            f"{', '.join(list(file.tensors)[:10])}."
        )
    block = NonLocalBlock(
        g.shape[1],
        g.shape[0],
        cast(Literal[1, 2, 3], g.dim() - 2),
        sub_sample,
        bn_layer,
        nonlocal_type,
        pool_order="conv_pool",
    )
    expected = block.state_dict()
    theirs = {name: _their_name(name, sub_sample=sub_sample, bn_layer=bn_layer) for name in expected}
    problems = [f"{name} is missing" for name in theirs.values() if name not in file.tensors]
    problems += [f"{name} is not part of it" for name in file.tensors if name not in theirs.values()]
    state = {}
    for name, tensor in expected.items():
        if theirs[name] in file.tensors:
            state[name] = file.tensors[theirs[name]]
            if name == "concat_project.weight":  # theirs is a convolution, (1, 2 D, 1, 1)
                state[name] = state[name].reshape(1, -1)
            if state[name].shape != tensor.shape:
                shapes = f"{tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
                problems.append(f"{theirs[name]} is {shapes}")
    if problems:
        listed = "; ".join(problems[:10])
        raise ModelError(f"{file.path} is not a {nonlocal_type} block of Non-local_pytorch: {listed}.")
    with torch.no_grad():
        block.load_state_dict(state)
    return block.eval()


def _their_name(name: str, *, sub_sample: bool, bn_layer: bool) -> str:
    part, tensor = name.split(".")
    if part in ("g", "phi") and sub_sample:
        part += ".0"  # the pooling is .1
    elif part == "W" and bn_layer:
        part = "W.0"
    elif part == "bn":
        part = "W.1"
    elif part == "concat_project":
        part = "concat_project.0"
    return f"{part}.{tensor}"
