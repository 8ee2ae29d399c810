"""Training objectives: modules around the network that turn a batch into losses."""

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
"""Class of an unlabelled clip."""


class Batch(NamedTuple):
    """A batch of clips on one device."""

    clips: Tensor
    """Normalised views, (N, 3, T, H, W)."""
    targets: Tensor
    """Target probabilities, (N, classes); a row of zeros for an unlabelled clip."""
    indices: Tensor
    """Indices of the clips in their data set, (N,) int64, on the CPU."""
    epoch: int
    """Index of the epoch; with a clip's index it determines the random view."""


class Losses(NamedTuple):
    """Losses of a batch."""

    total: Tensor
    """Loss to minimise, a differentiable scalar."""
    terms: dict[str, Tensor]
    """Unweighted terms by name for logging, detached scalars."""
    logits: Tensor
    """Logits of the network, (N, classes)."""


class Objective(nn.Module, ABC):
    """Base class of objectives. All trainable modules are submodules, including the network, as DDP needs.

    Attributes:
        network: Network that is trained and saved; other submodules are for training only.
    """

    network: Video3DResNet | InceptionI3D

    @abstractmethod
    def forward(self, batch: Batch) -> Losses:
        """Compute the losses of a batch."""

    def finalize(self) -> None:
        """Complete the network before it is validated and saved, with weights that gradients do not train."""


class CrossEntropy(Objective):
    """Cross entropy with soft targets and label smoothing (Szegedy et al., CVPR 2016, section 7)."""

    def __init__(
        self, network: Video3DResNet | InceptionI3D, label_smoothing: float = 0.0, *, frozen: str | None = None
    ) -> None:
        """Wrap a network.

        Args:
            network: Network to train.
            label_smoothing: Share of the target that is spread evenly over all classes.
            frozen: Name of the last frozen layer, if batches contain its cached output instead of clips.

        Raises:
            UsageError: `label_smoothing` is out of range.
        """
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"{label_smoothing = } should be from 0 to below 1.")
        self.network, self.label_smoothing, self.frozen = network, label_smoothing, frozen

    def forward(self, batch: Batch) -> Losses:
        """Return the mean loss over the labelled clips."""
        if self.frozen is None:
            logits = self.network(batch.clips)
        else:
            logits = self.network.forward_from(self.frozen, batch.clips)
        loss = cross_entropy(logits, batch.targets, self.label_smoothing)
        return Losses(loss, {"cross_entropy": loss.detach()}, logits)


def one_hot(classes: Tensor, num_classes: int) -> Tensor:
    """Return one-hot targets: (N,) int64 -> (N, num_classes) float32, zeros for unlabelled clips; without host sync."""
    return (classes[:, None] == torch.arange(num_classes, device=classes.device)).float()


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross entropy over the labelled rows; 0 without any. (N, K), (N, K) -> float32 scalar."""
    losses = F.cross_entropy(logits.float(), targets.float(), label_smoothing=label_smoothing, reduction="none")
    labelled = targets.sum(dim=1) > 0
    return torch.where(labelled, losses, 0).sum() / labelled.sum().clamp(min=1)
