"""Aggregation of the logits of several views into one score per class, as the model card specifies."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from nonlocal_video.errors import ModelError
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.token_layout import layout_of


def window_logits(card: ModelCard, network: nn.Module, features: Tensor) -> Tensor:
    """Apply the linear classifier `network.fc` at every position of the card's window over the last features.

    PySlowFast and the authors test their networks like this ("fully convolutional"): trained on 7 x 7 cells and applied
    to 8 x 8, they give 2 x 2 outputs.

    Args:
        card: Model card with a `head_window`, (T, H, W) cells.
        network: Network with the classifier as its `fc`.
        features: Last features, (B, C, T', H', W').

    Returns:
        Logits (B, P, classes) at P positions.

    Raises:
        ModelError: The features are smaller than the window.
    """
    window = card.head_window
    classifier = getattr(network, "fc", None)
    if window is None or not isinstance(classifier, nn.Linear):
        raise ModelError(f"The card of {card.name!r} asks for a window of {window} under a head that is not linear.")
    size = tuple(features.shape[2:])
    if any(have < need for have, need in zip(size, window, strict=True)):
        raise ModelError(f"Model {card.name!r} pools {window} cells and got {size}; give it larger or longer views.")
    pooled = avg_pool3d(features, window, stride=1)
    return classifier(pooled.flatten(2).transpose(1, 2))


def pooled(features: Tensor) -> Tensor:
    """The mean over all places: (B, C, ...) -> (B, C)."""
    return features.flatten(2).mean(dim=2) if features.dim() > 2 else features


def pooled_as_by_head(network: nn.Module, features: Tensor) -> Tensor:
    """Average the output of the layer before the classifier as the classifier does: (B, C, T', H', W') -> (B, C).

    That is the mean over all places unless the network has its own `pool_features`.
    """
    pool = getattr(network, "pool_features", None)
    return pooled(features) if pool is None else pool(features)


def pooled_layer_output(network: nn.Module, layer: str, output: Tensor) -> Tensor:
    """Average a layer's output over all places: a feature map (B, C, ...), or tokens (B, N, C) -> (B, C)."""
    layout = layout_of(network, layer)
    return pooled(output if layout is None or output.ndim < 3 else layout.as_map(output))


def average_scores(card: ModelCard, logits: Tensor) -> NDArray[np.float64]:
    """Average the scores of a clip over its views and windows.

    Args:
        card: Model card; `average` selects whether probabilities or logits are averaged.
        logits: Logits of all views and windows, (V, classes).

    Returns:
        Probabilities, (classes,).
    """
    logits = logits.double()
    averaged = logits.softmax(1).mean(0) if card.average == "probabilities" else logits.mean(0).softmax(0)
    result: NDArray[np.float64] = averaged.cpu().numpy()
    return result


def average_logits(card: ModelCard, logits: Tensor) -> NDArray[np.float32]:
    """Logits whose softmax is `average_scores`: those of a single view as they are.

    Args:
        card: Says whether probabilities are averaged or logits.
        logits: (V, classes).

    Returns:
        (classes,).
    """
    if len(logits) == 1 or card.average == "logits":
        averaged = logits.double().mean(0)
    else:
        averaged = logits.double().log_softmax(1).logsumexp(0) - math.log(len(logits))
    result: NDArray[np.float32] = averaged.float().cpu().numpy()
    return result
