"""Run a network once and keep the features that maps are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def forward_and_keep(
    network: nn.Module, clip: Tensor, *, inputs_of: Sequence[str] = (), outputs_of: Sequence[str] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """The network's answer for `clip` (N, 3, T, H, W), and by name the inputs or outputs of some of its modules."""
    kept: dict[str, Tensor] = {}

    def keeper(name: str, *, output: bool) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(_module: nn.Module, inputs: Any, result: Tensor) -> None:
            # A copy: the next module may be an in-place ReLU.
            kept[name] = (result if output else inputs[0]).clone()

        return keep

    handles = [network.get_submodule(name).register_forward_hook(keeper(name, output=True)) for name in outputs_of]
    handles += [network.get_submodule(name).register_forward_hook(keeper(name, output=False)) for name in inputs_of]
    try:
        logits = network(clip)
    finally:
        for handle in handles:
            handle.remove()
    return logits, kept


def first_not_finite(network: nn.Module, clip: Tensor) -> str:
    """Dotted name of the first module whose output for `clip` has a value that is not finite."""
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def check(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return check

    handles = [module.register_forward_hook(watch(name)) for name, module in network.named_modules() if name]
    try:
        network(clip)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the head"
