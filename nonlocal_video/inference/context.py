"""Answers that draw on each other: the windows of a video, or the clips of a folder, by the non-local mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nonlocal_video.blocks.nonlocal_mean import nonlocal_mean, nonlocal_mean_so_far, nonlocal_weights
from nonlocal_video.errors import UsageError

Context = Literal["nonlocal", "none"]
FolderContext = Literal["none", "folder"]

LEAST_WEIGHT = 0.01
"""Others that weigh less than this are not named."""


@dataclass(frozen=True)
class DrawnOn:
    """Context that an answer rests on.

    Attributes:
        own: Weight of the position itself, 0 to 1.
        others: (position, weight) of those that weigh the most, the heaviest first; at least `LEAST_WEIGHT`.
    """

    own: float
    others: tuple[tuple[int, float], ...]


def check_context(context: str, allowed: object = Context) -> None:
    """Refuse a context that does not exist.

    Raises:
        UsageError: It is not one of the allowed ones.
    """
    choices = get_args(allowed)
    if context not in choices:
        raise UsageError(f"context = {context!r} should be one of {', '.join(choices)}.")


def check_has_features(network: object, model: str, context: str) -> None:
    """Refuse a context for a network whose features are not known.

    Raises:
        UsageError: It does not name the layer before its classifier.
    """
    if context != "none" and getattr(network, "feature_layer", None) is None:
        raise UsageError(
            f"context = {context!r} compares answers by the features before the classifier, and the network of "
            f"{model!r} has no `feature_layer` that names them. Use --context none."
        )


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The softmax of each row: (W, classes) -> (W, classes)."""
    return np.asarray(torch.from_numpy(logits).double().softmax(1).float().numpy())


def refined(logits: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probabilities of W answers, each refined by all of them.

    Square roots of probabilities are averaged, each of sum 1, and the means are squared again. This
    lies between means of probabilities, which the surest answers decide, and means of logits, which the surest
    exclusions decide. An answer that draws on itself alone stays as it is.

    Args:
        logits: (W, classes).
        features: (W, C) pooled features of the same pass.

    Returns:
        (W, classes).
    """
    return _hardened(nonlocal_mean(_softened(logits), torch.from_numpy(features)))


def refined_so_far(
    logits: NDArray[np.float32], features: NDArray[np.float32], *, first: int = 0, band: int | None = None
) -> NDArray[np.float32]:
    """Return the probabilities of answers that are still coming, each refined by itself and those before it.

    Args:
        logits: (W, classes).
        features: (W, C).
        first: Number of the first answer wanted.
        band: Number of answers before itself that one may draw on; None is all.

    Returns:
        (W - first, classes).
    """
    values = _softened(logits)
    return _hardened(nonlocal_mean_so_far(values, torch.from_numpy(features), first=first, band=band))


def _softened(logits: NDArray[np.float32]) -> Tensor:
    return (torch.from_numpy(logits) / 2).softmax(1)


def _hardened(means: Tensor) -> NDArray[np.float32]:
    squares = means.double().square()
    return np.asarray((squares / squares.sum(1, keepdim=True)).float().numpy())


def drawn_on(features: NDArray[np.float32], *, k: int = 5, positions: Sequence[int] | None = None) -> Iterator[DrawnOn]:
    """Yield which others each refined answer rests on.

    Args:
        features: (W, C).
        k: Others that are named, at most.
        positions: Answers wanted; None is all in order.
    """
    wanted = range(len(features)) if positions is None else positions
    row = 0
    for weights in nonlocal_weights(torch.from_numpy(features), torch.tensor(list(wanted))):
        own_column = torch.tensor(list(wanted[row : row + len(weights)]))[:, None]
        own = weights.gather(1, own_column)
        best = weights.scatter(1, own_column, -1.0).topk(min(k, weights.shape[1] - 1), dim=1)
        for share, values, indices in zip(own[:, 0].tolist(), best.values.tolist(), best.indices.tolist(), strict=True):
            others = [(index, value) for index, value in zip(indices, values, strict=True) if value >= LEAST_WEIGHT]
            yield DrawnOn(share, tuple(others))
        row += len(weights)
