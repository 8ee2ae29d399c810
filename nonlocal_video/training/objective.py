"""What is minimised: a module around the network that turns a batch into losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocal_video.errors import UsageError
from nonlocal_video.models.inception3d import InceptionI3D
from nonlocal_video.models.resnet3d import Video3DResNet

UNLABELLED = -1
"""Class of a clip that has none."""


class Batch(NamedTuple):
    """Clips of one optimisation step's part on one device."""

    clips: Tensor
    """(N, 3, T, H, W) normalised views."""
    targets: Tensor
    """(N, classes) probabilities; a row of zeros for an unlabelled clip."""
    places: Tensor
    """(N,) int64, places of the clips in their dataset; on the CPU, where they are read."""
    epoch: int
    """With the place what a random view depends on."""


class Losses(NamedTuple):
    """What a batch costs."""

    total: Tensor
    """Scalar, differentiable."""
    terms: dict[str, Tensor]
    """Its parts by name, detached scalars, as they are logged."""
    logits: Tensor
    """(N, classes) of the network."""


class Objective(nn.Module, ABC):
    """Base of objectives. Everything that learns is a submodule, the network among it: that is what DDP needs.

    Attributes:
        network: The network that is trained and saved; other submodules only serve training.
    """

    network: Video3DResNet | InceptionI3D

    @abstractmethod
    def forward(self, batch: Batch) -> Losses: ...

    def finalize(self) -> None:
        """Called before the network is measured and saved: what is not learnt by gradients is put into it here."""


class CrossEntropy(Objective):
    """Cross entropy to soft targets, with label smoothing (Szegedy et al., CVPR 2016, section 7)."""

    def __init__(
        self, network: Video3DResNet | InceptionI3D, label_smoothing: float = 0.0, *, frozen: str | None = None
    ) -> None:
        """Prepare.

        Args:
            network: The network.
            label_smoothing: Share of the target that is spread over all classes.
            frozen: The last layer that does not learn; batches then hold its output in the place of clips.
        """
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"{label_smoothing = } should be from 0 to below 1.")
        self.network, self.label_smoothing, self.frozen = network, label_smoothing, frozen

    def forward(self, batch: Batch) -> Losses:
        """Mean over the batch's labelled clips."""
        if self.frozen is None:
            logits = self.network(batch.clips)
        else:
            logits = self.network.forward_from(self.frozen, batch.clips)
        loss = cross_entropy(logits, batch.targets, self.label_smoothing)
        return Losses(loss, {"cross_entropy": loss.detach()}, logits)


def one_hot(classes: Tensor, num_classes: int) -> Tensor:
    """(N,) int64 -> (N, num_classes) float32; all zero for an unlabelled clip. The device is not waited for."""
    return (classes[:, None] == torch.arange(num_classes, device=classes.device)).float()


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the rows whose targets are not all zero; 0 if there is none. (N, K), (N, K) -> scalar, float32."""
    losses = F.cross_entropy(logits.float(), targets.float(), label_smoothing=label_smoothing, reduction="none")
    labelled = targets.sum(dim=1) > 0
    return torch.where(labelled, losses, 0).sum() / labelled.sum().clamp(min=1)
