"""Capture of inputs and outputs of a network's modules during one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nonlocal_video.models.token_layout import first_tensor


@dataclass(frozen=True)
class Captured:
    """Inputs and outputs of some modules in one forward pass, by dotted name."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)

    def float(self) -> Captured:
        """Return the same tensors in float32."""
        return Captured(*({name: one.float() for name, one in kept.items()} for kept in (self.inputs, self.outputs)))


def forward_and_capture(
    network: nn.Module, clip: Tensor, *, capture_inputs: Sequence[str] = (), capture_outputs: Sequence[str] = ()
) -> tuple[Tensor, Captured]:
    """Run a network on `clip` (N, 3, T, H, W); return its logits and inputs or outputs of some modules."""
    kept = Captured()

    def keeper(name: str, *, output: bool) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(_module: nn.Module, arguments: Any, result: Any) -> None:
            # A copy, since the next module may be an in-place ReLU. It is a sum, since OpenVINO, for which this is
            # traced, takes a clone for the tensor itself, and cannot give one tensor as two outputs.
            if output:
                kept.outputs[name] = first_tensor(result) + 0.0
            else:
                kept.inputs[name] = arguments[0] + 0.0

        return keep

    handles = [network.get_submodule(name).register_forward_hook(keeper(name, output=True)) for name in capture_outputs]
    handles += [
        network.get_submodule(name).register_forward_hook(keeper(name, output=False)) for name in capture_inputs
    ]
    try:
        logits = network(clip)
    finally:
        for handle in handles:
            handle.remove()
    return logits, kept


def first_non_finite_module(network: nn.Module, clip: Tensor) -> str:
    """Return the dotted name of the first module whose output for `clip` has a value that is not finite."""
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
