"""The network as a file holds it: one clip's view in, logits out, nothing in it that only training needs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nonlocal_video.blocks.nonlocal_block import NonLocalBlock, Rows
from nonlocal_video.inference.averaging import window_logits
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.folding import fold_batch_norms


class ViewLogits(nn.Module):
    """Normalised clips (B, 3, T, S, S) -> logits (B, classes), one row a view, as the model's card pools and averages.

    A card with a `head_window` has the classifier look at P places. Where it averages probabilities, not logits, the
    row is the logarithm of the mean of the P softmaxes: its own softmax is then the view's answer, as elsewhere.

    With `channels_last` the network sees the same numbers in the order in which PyTorch's convolutions are faster.
    """

    def __init__(self, network: nn.Module, card: ModelCard, *, channels_last: bool = False) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.channels_last = channels_last

    def forward(self, clips: Tensor) -> Tensor:
        if self.channels_last:
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        if self.card.head_window is None:
            return self.network(clips)
        network: Any = self.network  # of ours, with a head that can be taken off
        logits = window_logits(self.card, network, network.forward_to(network.feature_layer, clips))  # (B, P, classes)
        num_places = logits.shape[1]
        if num_places == 1:
            return logits[:, 0]
        if self.card.average == "logits":
            return logits.mean(dim=1)
        return logits.log_softmax(dim=2).logsumexp(dim=1) - math.log(num_places)


@dataclass(frozen=True)
class _WholeMatrix:
    """y = (f / C) g with the N x M matrix: the same function, for formats that cannot search in sorted keys."""

    def kernel(self, rows: Rows, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return rows(theta, phi) @ g

    def rows(self, rows: Rows, theta: Tensor, phi: Tensor) -> Tensor:
        return rows(theta, phi)

    def __str__(self) -> str:
        return "whole_matrix"


def exportable(network: nn.Module, card: ModelCard, *, for_pytorch: bool) -> tuple[ViewLogits, tuple[str, ...]]:
    """A copy of a network for export, and what in it is written otherwise than the network computes it.

    Args:
        network: On the CPU, in eval mode; it isn't changed.
        card: The network's.
        for_pytorch: Whether PyTorch runs the copy: then it works in channels last, which is faster there, and keeps
            the concatenation kernel's search in sorted keys, which other formats have no operation for.
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
    copied = ViewLogits(folded, card, channels_last=for_pytorch)
    return copied.eval().requires_grad_(False), tuple(notes)


def exported_card(card: ModelCard, spec: InputSpec) -> str:
    """The card as JSON, with the input that the file takes as its only one."""
    return json.dumps(asdict(replace(card, input=spec, fast_input=None)))


def trace(network: nn.Module, shape: tuple[int | None, ...]) -> torch.export.ExportedProgram:
    """The network's operations on clips of a shape (B, 3, T, S, S), whose B may be None: any number."""
    any_batch = shape[0] is None
    # A dimension that is to be any number must not be 0 or 1 in the example.
    example = torch.zeros([2 if side is None else side for side in shape])
    dynamic = ({0: torch.export.Dim("batch", min=1)},) if any_batch else None
    program = torch.export.export(network, (example,), dynamic_shapes=dynamic, strict=False)
    program.example_inputs = None  # or a file would hold it, too
    return program
