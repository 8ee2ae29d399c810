"""Networks in a form that can be traced for other runtimes: one forward pass for clips of one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nonlocal_video.blocks.nonlocal_block import NonLocalBlock, Rows
from nonlocal_video.inference.aggregation import pooled_as_by_head, window_logits
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.folding import fold_batch_norms

TOLERANCE = 1e-4
"""Largest difference allowed between another runtime's logits and PyTorch's, as a share of the largest logit."""


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


class LogitsAndFeatures(PlaceLogits):
    """The same, and the pooled features (B, C) of the layer before the classifier.

    Args:
        network: With a `feature_layer`, `forward_to` and `head`.
        card: The network's.
    """

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return logits (B, P, classes) and pooled features (B, C) of normalised clips (B, 3, T, S, S)."""
        network: Any = self.network
        features = network.forward_to(network.feature_layer, clips)
        if self.card.head_window is None:
            return network.head(features)[:, None], pooled_as_by_head(network, features)
        return window_logits(self.card, network, features), pooled_as_by_head(network, features)


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
    any_batch = shape[0] is None
    # A dimension that is to be any number must not be 0 or 1 in the example.
    example = torch.zeros([2 if side is None else side for side in shape])
    dynamic = ({0: torch.export.Dim("batch", min=1)},) if any_batch else None
    program = torch.export.export(network, (example,), dynamic_shapes=dynamic, strict=False)
    program.example_inputs = None  # or a file would hold it, too
    return program
