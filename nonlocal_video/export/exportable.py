"""The network as a file holds it: one clip's view in, logits out, nothing in it that only training needs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from nonlocal_video.inference.runtimes.traceable import PlaceLogits, traceable
from nonlocal_video.models.card import InputSpec, ModelCard


class ViewLogits(PlaceLogits):
    """Normalised clips (B, 3, T, S, S) -> logits (B, classes), one row a view, as the model's card pools and averages.

    A card with a `head_window` has the classifier look at P places. Where it averages probabilities, not logits, the
    row is the logarithm of the mean of the P softmaxes: its own softmax is then the view's answer, as elsewhere.

    With `channels_last` the network sees the same numbers in the order in which PyTorch's convolutions are faster.
    """

    def __init__(self, network: nn.Module, card: ModelCard, *, channels_last: bool = False) -> None:
        super().__init__(network, card)
        self.channels_last = channels_last

    def forward(self, clips: Tensor) -> Tensor:
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
    """A copy of a network for export, and what in it is written otherwise than the network computes it.

    Args:
        network: On the CPU, in eval mode; it isn't changed.
        card: The network's.
        for_pytorch: Whether PyTorch runs the copy: then it works in channels last, which is faster there. See also
            `traceable`.
    """
    copied, notes = traceable(network, for_pytorch=for_pytorch)
    return ViewLogits(copied, card, channels_last=for_pytorch).eval().requires_grad_(False), notes


def exported_card(card: ModelCard, spec: InputSpec) -> str:
    """The card as JSON, with the input that the file takes as its only one."""
    return json.dumps(asdict(replace(card, input=spec, fast_input=None)))
