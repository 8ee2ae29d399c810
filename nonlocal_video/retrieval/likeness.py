"""Similarity of windows: the cosine of the square roots of their features, less the archive's mean.

Features after a ReLU are all positive, so that any two of them are alike. What all share is the archive's mean, and
says nothing; it is subtracted. Of the mean of W windows it is W / (W + 8), as in `blocks.nonlocal_mean`: that of a few
windows of one scene is that scene itself. Square roots keep few large features from deciding (Hellinger's distance in
place of Euclid's; of a negative feature x it is -sqrt(-x)).

Vectors are float16 on the disk and multiplied as float32, a chunk of rows at a time, so that memory does not grow with
the archive. Nothing is approximated but by that rounding, which moves a score by less than 0.001.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.blocks.nonlocal_mean import MEAN_COUNTS_FROM

Floats = NDArray[np.float32]

CHUNK_ROWS = 1024
"""Rows that are float32 at a time: they stay in the processor's cache, which is fastest."""
_SHORTEST = 1e-6  # of a vector with a direction, times the length of what the mean is subtracted from


def rooted(features: Floats) -> Floats:
    """Return the square roots of features, with their signs."""
    values = torch.from_numpy(features)  # PyTorch: several times as fast as NumPy
    return np.asarray(values.abs().sqrt_().copysign_(values).numpy())


@dataclass(frozen=True)
class Centring:
    """Mean that is subtracted before windows are compared."""

    mean: Floats
    """Mean of `rooted` features of the archive, (C,)."""
    num_windows: int
    """Number of windows of which it is the mean."""

    @classmethod
    def of(cls, features: Floats) -> Centring:
        """Return the centring of an archive that is in memory, (W, C)."""
        return cls(rooted(features).mean(axis=0, dtype=np.float64).astype(np.float32), len(features))

    def unit(self, features: Floats) -> Floats:
        """Return vectors of length 1, whose products are the likeness: (N, C) -> (N, C).

        What has no direction, as a window that equals the mean, becomes zeros, which are like nothing.
        """
        rows = torch.from_numpy(rooted(features))
        least = (_SHORTEST * rows.norm(dim=1, keepdim=True)).clamp_min_(torch.finfo(torch.float32).tiny)
        rows -= self.num_windows / (self.num_windows + MEAN_COUNTS_FROM) * torch.from_numpy(self.mean)
        lengths = rows.norm(dim=1, keepdim=True)
        rows /= lengths.clamp_min(least)
        rows *= lengths > least
        return np.asarray(rows.numpy())


def cosines(vectors: NDArray[np.float16] | Floats, queries: Floats) -> Floats:
    """Return the product of each vector with each query: (R, C), (Q, C) -> (R, Q)."""
    result = torch.empty(len(vectors), len(queries))
    wanted = torch.from_numpy(queries).T
    for start in range(0, len(vectors), CHUNK_ROWS):
        rows = torch.from_numpy(vectors[start : start + CHUNK_ROWS])
        torch.mm(rows.float(), wanted, out=result[start : start + len(rows)])
    return np.asarray(result.clamp_(-1, 1).numpy())  # a rounded vector may be longer than 1
