"""The network as it is exported: one clip's view in, logits out, nothing that only training needs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from nonlocal_video.inference.runtimes.traceable import PlaceLogits, traceable
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.checkpoint import card_values


class ViewLogits(PlaceLogits):
    """Module from normalised clips (B, 3, T, S, S) to logits (B, classes), pooled and averaged as the card says.

    For a card with a `head_window` the classifier runs at P positions of the window. If the card averages probabilities
    and not logits, the result is the logarithm of the mean of the P softmaxes, so that its softmax is the view's
    prediction as elsewhere.

    With `channels_last` the network runs in the memory format in which PyTorch's convolutions are faster.
    """

    def __init__(self, network: nn.Module, card: ModelCard, *, channels_last: bool = False) -> None:
        super().__init__(network, card)
        self.channels_last = channels_last

    def forward(self, clips: Tensor) -> Tensor:
        """Compute logits (B, classes) from clips (B, 3, T, S, S)."""
        if self.channels_last:
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        logits = super().forward(clips)  # (B, P, classes)
        num_places = logits.shape[1]
        if num_places == 1:
            return logits[:, 0]
        if self.card.average == "logits":
            return logits.mean(dim=1)
        return logits.log_softmax(dim=2).logsumexp(dim=1) - math.log(num_places)


def exportable(network: nn.Module, card: ModelCard, *, for_pytorch: bool) -> tuple[ViewLogits, tuple[str, ...]]:
    """Return a copy of a network for export, and notes on what in it computes differently from the network.

    Args:
        network: A network on the CPU, in eval mode; it does not change.
        card: Card of the network.
        for_pytorch: Whether PyTorch runs the copy, which then works in channels last, the faster format there. See also
            `traceable`.
    """
    copied, notes = traceable(network, for_pytorch=for_pytorch)
    return ViewLogits(copied, card, channels_last=for_pytorch).eval().requires_grad_(False), notes


def exported_card(card: ModelCard, spec: InputSpec) -> str:
    """Return the card as JSON, with the file's input as its only one."""
    return json.dumps(card_values(replace(card, input=spec, fast_input=None)))
