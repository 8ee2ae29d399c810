"""Methods that the study of the non-local operation over time compares: functions of the windows of one video.

Each takes logits (W, classes) and features (W, C) of the windows in their order and gives (W, classes), of which the
largest of a row is the window's answer. `methods` has them by family, each with the settings that are chosen from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, median_filter

from nonlocal_video.blocks.nonlocal_mean import dot_product_mean
from nonlocal_video.inference.context import refined

Array = NDArray[np.float64]
Method = Callable[[Array, Array], Array]

TEMPERATURES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)


def softmax(rows: Array) -> Array:
    """Softmax of each row."""
    weights = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def unit(rows: Array, counts_from: float = 0) -> Array:
    """Rows less W / (W + counts_from) of their mean, of length 1."""
    centred = rows - len(rows) / (len(rows) + counts_from) * rows.mean(axis=0)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12))


def embedded(logits: Array, features: Array, embedding: str, *, counts_from: float = 0) -> Array:
    """Rows of length 1 by which windows are compared: of the features, of the logits, or of both side by side."""
    parts = {"features": [features], "logits": [logits], "both": [features, logits]}[embedding]
    return np.concatenate([unit(part, counts_from) for part in parts], axis=1) / np.sqrt(len(parts))


def alone(logits: Array, features: Array) -> Array:
    """Each window's own answer."""
    return logits


def mean(logits: Array, features: Array) -> Array:
    """One answer for the whole video."""
    return np.broadcast_to(softmax(logits).mean(axis=0), logits.shape)


def gaussian(logits: Array, features: Array, *, sigma: float) -> Array:
    """Probabilities smoothed in time; sigma in windows."""
    return np.asarray(gaussian_filter1d(softmax(logits), sigma, axis=0, mode="nearest"))


def median(logits: Array, features: Array, *, width: int) -> Array:
    """Each class's median probability of `width` windows."""
    return np.asarray(median_filter(softmax(logits), size=(width, 1), mode="nearest"))


def viterbi(logits: Array, features: Array, *, penalty: float) -> Array:
    """The likeliest path of classes where each change costs `penalty` in log probability; 1 at the path."""
    score = np.log(softmax(logits) + 1e-12)
    best, came_from = score[0], []
    for row in score[1:]:
        jump = best.max() - penalty
        came_from.append(np.where(best >= jump, np.arange(len(best)), best.argmax()))
        best = np.maximum(best, jump) + row
    path = [int(best.argmax())]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return np.eye(logits.shape[1])[path[::-1]]


def label_propagation(logits: Array, features: Array, *, alpha: float, temperature: float) -> Array:
    """Zhou et al., 2004: (1 - alpha) (I - alpha S)^-1 P, S = D^-1/2 A D^-1/2, A = exp(cos / T) without a diagonal."""
    z = unit(features)
    affinity = np.exp((z @ z.T - 1) / temperature)
    np.fill_diagonal(affinity, 0)
    degree = np.sqrt(np.maximum(affinity.sum(axis=1), 1e-300))
    normalised = affinity / degree[:, None] / degree[None]
    return np.asarray(np.linalg.solve(np.eye(len(z)) - alpha * normalised, (1 - alpha) * softmax(logits)))


def averaged(logits: Array, values: str) -> Array:
    """Values that the operation takes means of."""
    return logits if values == "logits" else softmax(logits / 2 if values == "softened" else logits)


def nonlocal_(
    logits: Array,
    features: Array,
    *,
    temperature: float,
    embedding: str = "features",
    values: str = "logits",
    grows: bool = False,
    counts_from: float = 0,
    confident: float = 0.0,
    local: float = 0.0,
    nearest: int = 0,
    steps: int = 1,
    shuffled: bool = False,
) -> Array:
    """The non-local operation, in its variants.

    Args:
        logits: (W, classes).
        features: (W, C).
        temperature: Of the softmax over windows.
        embedding: See `embedded`.
        values: What is averaged: `logits`, `probabilities`, or `softened` ones, the softmax of half of the logits.
        grows: Whether the scale is at least the logarithm of the number of windows.
        counts_from: Number of windows of which half of the mean is taken away; 0 takes all of it away.
        confident: Power of a window's largest probability by which its weight as a key is multiplied.
        local: Subtracted from a key's score for each window of distance in time.
        nearest: Only so many keys a query; 0 is all.
        steps: Number of times that it is applied, with the same weights.
        shuffled: Whether the features are those of other windows: a control.
    """
    if shuffled:
        features = features[np.random.default_rng(0).permutation(len(features))]
    z = embedded(logits, features, embedding, counts_from=counts_from)
    scale = max(1 / temperature, np.log(len(z))) if grows else 1 / temperature
    scores = scale * (z @ z.T)
    if confident:
        scores += confident * np.log(softmax(logits).max(axis=1))
    if local:
        places = np.arange(len(z))
        scores -= local * np.abs(places[:, None] - places)
    if nearest and nearest < len(z):
        scores[scores < np.partition(scores, -nearest, axis=1)[:, -nearest, None]] = -np.inf
    weights = softmax(scores)
    result = averaged(logits, values)
    for _ in range(steps):
        result = weights @ result
    return result


def perplexity(logits: Array, features: Array, *, keys: float, values: str = "logits") -> Array:
    """The operation whose rows each have a temperature that spreads them over as many keys."""
    z = unit(features)
    cosines = z @ z.T
    wanted = np.log(min(keys, 0.9 * len(z)))
    low, high = np.full(len(z), 1e-2), np.full(len(z), 1e3)
    for _ in range(40):
        scale = np.sqrt(low * high)
        weights = softmax(scale[:, None] * cosines)
        entropy = -(weights * np.log(weights + 1e-30)).sum(axis=1)
        low, high = np.where(entropy > wanted, scale, low), np.where(entropy > wanted, high, scale)
    return np.asarray(weights @ averaged(logits, values))


def linear(logits: Array, features: Array) -> Array:
    """The dot-product form, whose time grows with W alone."""
    return np.asarray(dot_product_mean(torch.from_numpy(logits), torch.from_numpy(features)))


def shipped(logits: Array, features: Array) -> Array:
    """Refine as `timeline` does by default."""
    return np.asarray(refined(logits.astype(np.float32), features.astype(np.float32)), dtype=np.float64)


def methods() -> dict[str, dict[str, Method]]:
    """Family -> setting -> method."""

    def grid(
        function: Callable[..., Array], name: str, choices: tuple[float, ...], **fixed: object
    ) -> dict[str, Method]:
        return {f"{name} {choice:g}": partial(function, **{name: choice}, **fixed) for choice in choices}

    found: dict[str, dict[str, Method]] = {
        "alone": {"": alone},
        "mean": {"": mean},
        "gaussian": grid(gaussian, "sigma", (0.3, 0.5, 0.7, 1, 1.5, 2, 3)),
        "median": {f"width {width}": partial(median, width=width) for width in (3, 5, 7, 9)},
        "viterbi": grid(viterbi, "penalty", (0.5, 1, 2, 3, 4, 6, 9)),
        "label propagation": {
            f"alpha {alpha}, temperature {temperature}": partial(
                label_propagation, alpha=alpha, temperature=temperature
            )
            for alpha in (0.3, 0.5, 0.7, 0.9)
            for temperature in (0.05, 0.1, 0.2)
        },
        "perplexity": grid(perplexity, "keys", (2, 4, 6, 8, 12, 16)),
        "perplexity, softened": grid(perplexity, "keys", (2, 4, 6, 8, 12, 16), values="softened"),
        "dot product": {"": linear},
        "shipped": {"": shipped},
    }
    for embedding in ("features", "logits", "both"):
        for values in ("logits", "probabilities", "softened"):
            for grows, counts_from in ((False, 0), (True, 0), (True, 8)):
                family = f"non-local, {embedding}, {values}" + (", scale grows" if grows else "")
                found[family + (", mean counts from 8" if counts_from else "")] = grid(
                    nonlocal_,
                    "temperature",
                    TEMPERATURES,
                    embedding=embedding,
                    values=values,
                    grows=grows,
                    counts_from=counts_from,
                )
    rest: dict[str, Any] = {"values": "softened", "grows": True, "counts_from": 8}
    found["non-local, confident keys"] = {
        f"temperature {temperature}, power {power}": partial(
            nonlocal_, temperature=temperature, confident=power, **rest
        )
        for temperature in (0.1, 0.2)
        for power in (0.5, 1, 2)
    }
    found["non-local, local term"] = {
        f"temperature {temperature}, {local} a window": partial(nonlocal_, temperature=temperature, local=local, **rest)
        for temperature in (0.2, 0.3)
        for local in (0.05, 0.2, 0.5)
    }
    found["non-local, nearest keys"] = {
        f"temperature {temperature}, {nearest} keys": partial(
            nonlocal_, temperature=temperature, nearest=nearest, **rest
        )
        for temperature in (0.2, 0.3)
        for nearest in (5, 10, 20)
    }
    found["non-local, two steps"] = grid(nonlocal_, "temperature", (0.1, 0.15, 0.2), steps=2, **rest)
    found["non-local, similarity shuffled"] = grid(nonlocal_, "temperature", TEMPERATURES, shuffled=True, **rest)
    return found
