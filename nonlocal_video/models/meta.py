"""A network's copy on the meta device, where tensors have shapes and no storage."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn


def meta_copy(network: nn.Module) -> nn.Module:
    """Copy a network to the meta device, in eval mode, without copying its weights first.

    While it is copied nobody else may run the network with hooks.
    """
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(network, memo).eval()
