"""The heads that `few_clips.py` compares, and how they are trained.

Every head ends in the default's pooling and a linear classifier. Before the pooling there is

- `linear`: nothing;
- `embedded_gaussian`, `dot_product`: the repository's block, new, so the identity at first;
- `itself`: the same block, in which each position sees only itself;
- `shuffled`: the embedded Gaussian, whose weights go to the values of random positions;
- `residual`: two 1x1x1 convolutions with a ReLU between, as many weights as the block, the identity at first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocal_video.blocks import NonLocalBlock
from nonlocal_video.blocks.kernels import softmax_kernel
from nonlocal_video.blocks.nonlocal_block import Rows
from nonlocal_video.errors import UsageError
from nonlocal_video.models.inception3d import InceptionI3D

Kind = Literal["linear", "itself", "residual", "shuffled", "embedded_gaussian", "dot_product"]
CLASSIFIER_RATE, MOMENTUM, WEIGHT_DECAY = 1.0, 0.9, 1e-2


class _WithoutMap:
    """A variant of the block as a control: it mixes the values in another way, and there is no attention to draw."""

    def rows(self, rows: Rows, theta: Tensor, phi: Tensor) -> Tensor:
        raise UsageError("A control of this study has no attention map; ask a block without a variant.")


class _Itself(_WithoutMap):
    """Each position sees only itself."""

    def kernel(self, rows: Rows, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return g


class _Shuffled(_WithoutMap):
    """Each weight goes to the value of another position, drawn anew each time."""

    def kernel(self, rows: Rows, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return softmax_kernel(theta, phi, g[:, torch.randperm(g.shape[1])])


class _Residual(nn.Module):
    """Two convolutions as a residual, the identity at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(channels, channels, 1), nn.Conv3d(channels, channels, 1)
        self.bn = nn.BatchNorm3d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.bn(self.second(self.first(maps).relu()))
        return maps + changed


def make_block(kind: Kind, channels: int) -> nn.Module:
    """Return the layer before the pooling: a map (B, C, T, H, W) to one of the same size."""
    if kind == "linear":
        return nn.Identity()
    if kind == "residual":
        return _Residual(channels)
    compared = "dot_product" if kind == "dot_product" else "embedded_gaussian"
    block = NonLocalBlock(channels, dimension=3, sub_sample=False, nonlocal_type=compared)
    block.variant = {"itself": _Itself(), "shuffled": _Shuffled()}.get(kind)
    return block


class Head(nn.Module):
    """(B, C, T, H, W) to logits (B, K)."""

    def __init__(self, kind: Kind, channels: int, num_classes: int) -> None:
        super().__init__()
        self.block = make_block(kind, channels)
        self.classifier = nn.Linear(channels, num_classes)
        # Random weights would stay wherever few examples say nothing.
        nn.init.zeros_(self.classifier.weight)

    def forward(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pooled(self.block(maps)))
        return logits


def pooled(maps: Tensor) -> Tensor:
    """Return the features that the default's classifier has, (B, C)."""
    return InceptionI3D.pool_features(None, maps)  # type: ignore[arg-type]


def train(
    kind: Kind, seen: Tensor, labels: Tensor, asked: Tensor, *, rate: float, steps: Sequence[int], seed: int
) -> Iterator[Tensor]:
    """The log-probabilities of the asked clips after each number of steps; every step sees all examples.

    The classifier is trained by SGD, which leaves it at zero wherever the examples say nothing; Adam would take
    rounding errors for gradients there. What stands before it is trained by AdamW, at the rate that is given.
    """
    torch.manual_seed(seed)
    head = Head(kind, seen.shape[1], int(labels.max()) + 1)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(head.classifier.parameters(), lr=CLASSIFIER_RATE, momentum=MOMENTUM, nesterov=True)
    ]
    if kind != "linear":
        optimizers.append(torch.optim.AdamW(head.block.parameters(), lr=rate, weight_decay=WEIGHT_DECAY))
    for step in range(1, max(steps) + 1):
        head.train()
        head.zero_grad()
        F.cross_entropy(head(seen), labels).backward()
        for optimizer in optimizers:
            optimizer.step()
        if step in steps:
            head.eval()
            with torch.no_grad():
                yield head(asked).log_softmax(1)


def prepared(taught: Tensor, asked: Tensor, former: Tensor, directions: int) -> tuple[Tensor, Tensor]:
    """The clips' maps for a trained head; what it takes to know of the clips comes from the examples.

    As in `teach`, what the former head (R, C) looks at most is damped, each example is scaled to length 1, and the
    asked clips all alike. Then the examples' mean is taken away, and some directions are kept: those that the pooled
    examples span, so that a linear head loses nothing, and those in which the positions vary most besides. At the end
    the pooled examples have a mean length of 1.
    """
    rows, others = (maps.movedim(1, 4).contiguous() for maps in (taught, asked))  # (B, T, H, W, C)
    rows, others = (maps - (maps @ former.T) @ former for maps in (rows, others))
    lengths = pooled(rows.movedim(4, 1)).norm(dim=1)
    rows, others = rows / lengths[:, None, None, None, None], others / lengths.mean()
    mean = pooled(rows.movedim(4, 1)).mean(0)
    rows, others = rows - mean, others - mean
    spanned = torch.linalg.svd(pooled(rows.movedim(4, 1)), full_matrices=False)[2][:directions]
    flat = rows.flatten(0, 3)
    flat = flat - flat @ spanned.T @ spanned
    besides = torch.linalg.eigh(flat.T @ flat)[1].T.flip(0)[: directions - len(spanned)]
    basis = torch.cat([spanned, besides]).T
    rows, others = ((maps @ basis).movedim(4, 1).contiguous() for maps in (rows, others))
    length = pooled(rows).norm(dim=1).mean()
    return rows / length, others / length
