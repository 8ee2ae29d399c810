"""Batch norms folded into the convolutions before them, for inference."""

from __future__ import annotations

import copy
import itertools
from collections import Counter

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nonlocal_video.blocks import NonLocalBlock
from nonlocal_video.models.inception3d import ConvUnit


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode that gives the same outputs in less time.

    In eval mode a batch norm is an affine map per channel, gain * (y - mean) / sqrt(var + eps) + bias, which the
    convolution before it can apply itself. Non-local blocks that are exactly the identity are left out: the copy
    has an `nn.Identity` in the place of each, under the same name.

    What feeds what cannot be read off the modules of a network, and tracing fails on shape arithmetic (SAME padding)
    and on blocks that check their input. So a batch norm is only folded where its parent says that it takes the
    output of that convolution and that nothing else does:

    - `nn.Sequential`, by the order of its children;
    - a module whose class has `conv_bn_pairs`, the names of its pairs;
    - Inception-I3D's `ConvUnit`.

    Others stay as they are, which is correct and merely slower.

    Args:
        network: In eval mode; it isn't changed.

    Raises:
        ValueError: If some part of the network is in training mode, where batch norms use the batch's statistics.
    """
    training = [name or type(network).__name__ for name, module in network.named_modules() if module.training]
    if training:
        raise ValueError(f"{training[0]} is in training mode; call eval() on the network before folding it.")
    folded = copy.deepcopy(network)
    if isinstance(folded, NonLocalBlock) and folded.is_identity:
        return nn.Identity().eval()
    for parent in list(folded.modules()):
        for name, child in parent.named_children():
            if isinstance(child, NonLocalBlock) and child.is_identity:
                setattr(parent, name, nn.Identity().eval())
    # A module that is used in several places cannot take on the batch norm of one of them. `_modules` because
    # `children()` gives a repeated module once.
    uses = Counter(child for parent in folded.modules() for child in parent._modules.values())
    for parent in list(folded.modules()):
        for conv_name, bn_name in _pairs(parent):
            conv, bn = parent._modules.get(conv_name), parent._modules.get(bn_name)
            if not isinstance(conv, _ConvNd) or conv.transposed or not isinstance(bn, _BatchNorm):
                continue
            if conv._forward_hooks or bn._forward_hooks:
                continue  # something, such as an inserted block, stands between the two or right after them
            if bn.running_mean is not None and uses[conv] == uses[bn] == 1:
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, bn))
                setattr(parent, bn_name, nn.Identity().eval())
    return folded


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of children of which the second takes the output of the first, and nothing else does."""
    if type(module).forward is nn.Sequential.forward:
        return list(itertools.pairwise(module._modules))
    if isinstance(module, ConvUnit):
        return [("conv", "bn")]
    return list(getattr(module, "conv_bn_pairs", ()))
