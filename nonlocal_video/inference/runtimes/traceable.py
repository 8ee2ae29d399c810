"""Networks in a form that can be traced for other runtimes: one forward pass for clips of one shape."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nonlocal_video.blocks.nonlocal_block import NonLocalBlock, Rows
from nonlocal_video.inference.aggregation import window_logits
from nonlocal_video.inference.runtimes.answer import answer_of, feature_layer_of
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.folding import fold_batch_norms
from nonlocal_video.models.token_layout import layout_of

TOLERANCE = 1e-4
"""Largest difference allowed between another runtime's logits and PyTorch's, as a share of the largest logit."""
Output = tuple[Literal["pooled", "output", "input"], str]
"""An output beside the logits: the pooled output, the output or the input of a layer, and its dotted name."""


class PlaceLogits(nn.Module):
    """Maps normalised clips (B, 3, T, S, S) to logits (B, P, classes); P is 1, or the positions of `head_window`."""

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.network = network
        self.card = card

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits of normalised clips."""
        if self.card.head_window is None:
            return self.network(clips)[:, None]
        network: Any = self.network  # of ours, with a head that can be taken off
        return window_logits(self.card, network, network.forward_to(network.feature_layer, clips))


def outputs_of(network: nn.Module) -> tuple[Output, ...]:
    """Return what maps and comparisons need beside the logits.

    These are the pooled features (B, C) and the output (B, C, T', H', W') of the layer before the classifier, if the
    network names it, and the input (B, C, T', H', W') of each non-local block. Maps of networks of tokens come from
    PyTorch.

    Args:
        network: As it was trained; in a folded copy blocks may be missing.
    """
    before_head = feature_layer_of(network)
    if before_head is not None and layout_of(network, before_head) is not None:
        return (("pooled", before_head),)
    features: list[Output] = [] if before_head is None else [("pooled", before_head), ("output", before_head)]
    layers: dict[str, Any] = getattr(network, "nonlocal_layers", dict)()
    blocks = [name for name, layer in layers.items() if isinstance(layer, NonLocalBlock)]
    return (*features, *(("input", name) for name in blocks))


class TracedAnswer(nn.Module):
    """Maps normalised clips (B, 3, T, S, S) to logits (B, P, classes), and to further outputs.

    Args:
        network: For tracing, see `traceable`.
        card: The network's.
        outputs: The further outputs, see `outputs_of`.
    """

    def __init__(self, network: nn.Module, card: ModelCard, outputs: Sequence[Output]) -> None:
        super().__init__()
        self.network, self.card = network, card
        self._outputs = outputs

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """Return logits, and the other outputs in their order."""
        inputs = [name for kind, name in self._outputs if kind == "input"]
        outputs = [name for kind, name in self._outputs if kind == "output"]
        answer = answer_of(self.network, self.card, clips, inputs_of=inputs, outputs_of=outputs)
        features = () if answer.features is None else (answer.features,)
        kept = answer.kept
        return (
            answer.logits,
            *features,
            *(kept.outputs[name] for name in outputs),
            *(kept.inputs[name] for name in inputs),
        )


@dataclass(frozen=True)
class _WholeMatrix:
    """y = (f / C) g with the N x M matrix: the same function, for runtimes that cannot search in sorted keys."""

    def kernel(self, rows: Rows, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return rows(theta, phi) @ g

    def rows(self, rows: Rows, theta: Tensor, phi: Tensor) -> Tensor:
        return rows(theta, phi)

    def __str__(self) -> str:
        return "whole_matrix"


def traceable(network: nn.Module, *, for_pytorch: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a copy of a network for tracing, and notes on what it computes differently.

    Args:
        network: Network in eval mode; it is not changed.
        for_pytorch: Whether PyTorch runs the traced network. If so, the concatenation kernel keeps its search in sorted
            keys, for which other runtimes have no operation.
    """
    folded = fold_batch_norms(network)
    notes = []
    for name, block in network.named_modules():
        if not isinstance(block, NonLocalBlock):
            continue
        if block.is_identity:
            notes.append(f"{name} adds exactly zero and is left out.")
        elif block.config.nonlocal_type == "concatenation" and block.variant is None and not for_pytorch:
            copied_block = folded.get_submodule(name)
            assert isinstance(copied_block, NonLocalBlock)
            copied_block.variant = _WholeMatrix()
            notes.append(f"{name} is written with its matrix of queries by keys: the format cannot search sorted keys.")
    return folded, tuple(notes)


def trace(network: nn.Module, shape: tuple[int | None, ...]) -> torch.export.ExportedProgram:
    """Trace the operations of a network on clips of a shape (B, 3, T, S, S); B may be None for any number."""
    # PyTorch's import for this warns where Triton is left out, as in the Docker image; nothing here needs it.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    any_batch = shape[0] is None
    # A dimension that is to be any number must not be 0 or 1 in the example.
    example = torch.zeros([2 if side is None else side for side in shape])
    dynamic = ({0: torch.export.Dim("batch", min=1)},) if any_batch else None
    program = torch.export.export(network, (example,), dynamic_shapes=dynamic, strict=False)
    program.example_inputs = None  # or a file would hold it, too
    return program
