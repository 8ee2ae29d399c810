"""The non-local operation over W positions with frozen embeddings: a mean over all of them, weighted by likeness.

    y_i = sum_j softmax_j(s cos(z_i, z_j)) g_j,    z = x - M / (M + 8) mean(x),    s = max(1 / T, ln M),    M keys

It is the embedded Gaussian of Wang et al. (CVPR 2018, eq. 3) with nothing to train, close to the non-local means that
it is named after (Buades et al., 2005). The positions may be the windows of a video or the clips of a folder.

The scale s grows with the logarithm of the number of keys once there are more than exp(1 / T) of them: a key that is
nothing like the query (cosine 0) has the weight 1 beside exp(s) of the query's own, so that with a fixed scale M such
keys would outweigh everything else as M grows. With s = ln M all of them together weigh as much as the query's own.

z are the features x less their mean, which all positions share and which says nothing of their likeness. But the mean
of a few windows of one scene is that scene itself, so that with M keys M / (M + 8) of it is taken away.

Everywhere `values` is (W, D) and `features` (W, C). Memory beyond them is O(W): weights are made a chunk of queries at
a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from nonlocal_video.blocks.kernels import CHUNK_ENTRIES, dot_product_kernel, query_chunks, softmax_kernel, softmax_rows

TEMPERATURE = 0.2
MEAN_COUNTS_FROM = 8
"""Number of keys of which half of the mean is taken away."""


def embedding(features: Tensor) -> Tensor:
    """Features less most of their mean, scaled to length 1: (W, C) -> (W, C)."""
    num = len(features)
    return F.normalize(features - num / (num + MEAN_COUNTS_FROM) * features.mean(dim=0), dim=1)


def softmax_scale(num_keys: int, temperature: float = TEMPERATURE) -> float:
    """Return the factor before the softmax for so many keys."""
    return max(1.0 / temperature, math.log(num_keys))


def nonlocal_mean(values: Tensor, features: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
    """Replace each value by the mean over all values, weighted by the likeness of their features.

    Args:
        values: (W, D), for example logits.
        features: (W, C).
        temperature: T above: the lower, the less different positions mix.

    Returns:
        (W, D).

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> nonlocal_mean(torch.tensor([[1.0], [0.0], [0.0]]), features).round(decimals=3)
        tensor([[0.5000],
                [0.5000],
                [0.0000]])
    """
    _check(values, features)
    z = embedding(features)[None]
    return softmax_kernel(z, z, values[None], scale=softmax_scale(len(z[0]), temperature))[0]


def nonlocal_weights(
    features: Tensor, positions: Tensor | None = None, *, temperature: float = TEMPERATURE
) -> Iterator[Tensor]:
    """Yield the weights of `nonlocal_mean`, some rows at a time.

    Args:
        features: (W, C).
        positions: (Q,) indices of the rows wanted; None is all W in order.
        temperature: As for `nonlocal_mean`.

    Yields:
        (q, W) rows that sum to 1; the q of all of them add up to Q.
    """
    z = embedding(features)[None]
    scale = softmax_scale(z.shape[1], temperature)
    for queries in query_chunks(z if positions is None else z[:, positions], z.shape[1]):
        yield softmax_rows(queries, z, scale=scale)[0]


def nonlocal_mean_so_far(
    values: Tensor,
    features: Tensor,
    *,
    first: int = 0,
    band: int | None = None,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """`nonlocal_mean` of each position over itself and those before it, for what is still running.

    Row i is the last row of `nonlocal_mean` for the positions that it may use, their own mean included; so the last row
    of the whole is exact without a band.

    Args:
        values: (W, D).
        features: (W, C).
        first: Number of the first row wanted; those before it are keys only.
        band: Number of positions before itself that a row may use; None is all of them.
        temperature: As for `nonlocal_mean`.

    Returns:
        (W - first, D).
    """
    _check(values, features)
    squares = features.square().sum(dim=1)
    result = values.new_empty(len(values) - first, values.shape[1])
    size = max(1, CHUNK_ENTRIES // max(1, len(values)))
    for start in range(first, len(values), size):
        rows = torch.arange(start, min(start + size, len(values)), device=values.device)
        from_key = 0 if band is None else max(0, start - band)
        keys = torch.arange(from_key, int(rows[-1]) + 1, device=values.device)
        allowed = keys <= rows[:, None]
        if band is not None:
            allowed &= keys >= rows[:, None] - band
        counts = allowed.sum(dim=1, keepdim=True)
        query, key = features[rows], features[keys]
        means = (allowed.to(key.dtype) @ key) / (counts + MEAN_COUNTS_FROM)  # (q, C): each row's own
        # (x_i - m_i) . (x_j - m_i) and |x_j - m_i|, without writing out a key for every row
        to_mean = means @ key.T
        of_mean = means.square().sum(dim=1, keepdim=True)
        products = query @ key.T - (query * means).sum(dim=1, keepdim=True) - to_mean + of_mean
        lengths = (squares[keys] - 2 * to_mean + of_mean).clamp_min(0).sqrt()
        own = (query - means).norm(dim=1, keepdim=True)
        cosines = products / (own * lengths).clamp_min(1e-12)
        scale = counts.to(key.dtype).log().clamp_min(1.0 / temperature)
        weights = (scale * cosines).masked_fill(~allowed, -math.inf).softmax(dim=1)
        result[start - first : start - first + len(rows)] = weights @ values[keys]
    return result


def dot_product_mean(values: Tensor, features: Tensor) -> Tensor:
    """Compute the mean with the dot-product kernel (eq. 4), in time linear in W: (W, D), (W, C) -> (W, D).

    y_i = sum_j (1 + cos(z_i, z_j)) g_j / sum_j (1 + cos(z_i, z_j)). The weights are a product of (z_i, 1) and (z_j, 1),
    so all keys meet in one (C + 1) x (D + 1) matrix, whatever their number. They choose far less than the softmax does.
    """
    _check(values, features)
    z = F.pad(embedding(features), (0, 1), value=1.0)[None]
    weighted = dot_product_kernel(z, z, F.pad(values, (0, 1), value=1.0)[None])[0]
    return weighted[:, :-1] / weighted[:, -1:]


def _check(values: Tensor, features: Tensor) -> None:
    if values.dim() != 2 or features.dim() != 2 or len(values) != len(features) or not len(values):
        raise ValueError(
            f"values {tuple(values.shape)} and features {tuple(features.shape)} should be (W, D) and (W, C), a row a "
            f"position, at least one."
        )
