"""Folding of batch norms into the convolutions before them, for inference."""

from __future__ import annotations

import copy
import itertools
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nonlocal_video.blocks import NonLocalBlock
from nonlocal_video.models.inception3d import ConvUnit


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy of a network in eval mode that gives the same outputs in less time.

    In eval mode a batch norm is an affine map per channel, gain * (y - mean) / sqrt(var + eps) + bias, which can be
    merged into the convolution before it. Non-local blocks that are exactly the identity are replaced by `nn.Identity`
    under the same name.

    The modules of a network do not show which output goes where, and tracing fails on shape arithmetic (SAME padding)
    and on blocks that check their input. So a batch norm is only folded if its parent declares that it takes the output
    of that convolution and that nothing else does:
    - `nn.Sequential`, by the order of its children;
    - a module whose class has `conv_bn_pairs`, the names of its pairs;
    - Inception-I3D's `ConvUnit`.

    All others stay as they are, which is correct and merely slower.

    Args:
        network: A network in eval mode; it does not change.

    Raises:
        ValueError: If a part of the network is in training mode, in which batch norms use the batch's statistics.

    Example:
        >>> network = InceptionI3D(InceptionI3DConfig(num_classes=5)).eval()
        >>> sum(isinstance(module, nn.BatchNorm3d) for module in fold_batch_norms(network).modules())
        0
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
    # A module that is used more than once cannot absorb a batch norm that follows only one of its uses. `_modules`,
    # because `children()` yields a repeated module once.
    uses = Counter(child for parent in folded.modules() for child in parent._modules.values())
    for parent in list(folded.modules()):
        for conv_name, bn_name in _pairs(parent):
            conv, bn = parent._modules.get(conv_name), parent._modules.get(bn_name)
            if not isinstance(conv, _ConvNd) or conv.transposed or not isinstance(bn, _BatchNorm):
                continue
            if conv._forward_hooks or bn._forward_hooks:
                continue  # another module, such as an inserted block, is between the two or right after them
            if bn.running_mean is not None and uses[conv] == uses[bn] == 1:
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, bn))
                setattr(parent, bn_name, nn.Identity().eval())
    return folded


def with_channels_last(network: nn.Module) -> nn.Module:
    """Lay out the kernels of a network's 3D convolutions channels last, in place; others (2D, linear) stay."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return network


class OneDnnConv3d(nn.Conv3d):
    """A 3D convolution that oneDNN runs for a single view as well.

    On a CPU PyTorch itself gives a convolution with N C T H <= 20,480 values, one view and kernels of up to 3 x 3 to an
    older kernel of its own (`slow_conv3d`), which takes several times as long: 17 of Inception-I3D's at 64 frames.
    Under autocast PyTorch does it all: it converts what it is given, and this call would not.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        is_one_view = input.ndim == 5 and input.shape[0] == 1 and not torch.is_autocast_enabled("cpu")
        if is_one_view and input.device.type == "cpu" and input.dtype == torch.float32:
            assert not isinstance(self.padding, str)  # `with_onednn` leaves these out
            return torch.mkldnn_convolution(input, weight, bias, self.padding, self.stride, self.dilation, self.groups)
        return super()._conv_forward(input, weight, bias)


def with_onednn(network: nn.Module) -> nn.Module:
    """Make the 3D convolutions of a network `OneDnnConv3d`, in place, where PyTorch has oneDNN."""
    if torch.backends.mkldnn.is_available():
        for module in network.modules():
            if type(module) is nn.Conv3d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
                module.__class__ = OneDnnConv3d
    return network


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Return pairs of children of which the second takes the output of the first, and nothing else does."""
    if type(module).forward is nn.Sequential.forward:
        return list(itertools.pairwise(module._modules))
    if isinstance(module, ConvUnit):
        return [("conv", "bn")]
    return list(getattr(module, "conv_bn_pairs", ()))
