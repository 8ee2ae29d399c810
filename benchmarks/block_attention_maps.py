"""Maps that the study of the default's non-local block compares: where its attention could lie, and controls.

A map is (T', H', W') on the cells of a layer. `coarse` are the features of Mixed_5c, on which the head's evidence is
exact; `fine` those of Mixed_4f, with twice the cells along each axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nonlocal_video.benchmark.principal import set_principal
from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.blocks.kernels import dot_product_rows, mean_row, softmax_rows
from nonlocal_video.blocks.video import VideoNonLocalBlock

FINE, COARSE = "Mixed_4f", "Mixed_5c"
FORMER_DIRECTIONS = 128
COSINE_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Features:
    """Features (C, T', H', W') of one view, those of an empty view of the same size, and the answer's evidence."""

    fine: Tensor
    coarse: Tensor
    empty: Tensor
    """`coarse` of an input of zeros, which is also what the convolutions are padded with."""
    evidence: Tensor
    """(T', H', W') of the coarse layer."""

    def query(self) -> int:
        """Return the coarse cell with the strongest evidence, in row-major order."""
        return int(self.evidence.argmax())


def rows_of(features: Tensor) -> Tensor:
    """(C, T', H', W') -> (T' H' W', C), float32."""
    return features.flatten(1).T.float()


def principal_directions(cells: list[Tensor], count: int) -> Tensor:
    """Return the first uncentred principal directions (count, C) of features (C, T', H', W')."""
    outer = sum(rows_of(one).double().T @ rows_of(one).double() for one in cells)
    assert isinstance(outer, Tensor)
    return torch.linalg.eigh(outer)[1].flip(1)[:, :count].T.float()


def padding_directions(empty: Tensor, count: int) -> Tensor:
    """Return the first directions (count, C) in which an empty clip's cells differ from its central one."""
    rows = rows_of(empty)
    time, height, width = empty.shape[1:]
    centre = empty[:, time // 2, height // 2, width // 2].float()
    return torch.linalg.svd((rows - centre).double(), full_matrices=False)[2][:count].float()


def former_block(cells: list[Tensor]) -> VideoNonLocalBlock:
    """Make the block that the default had before: whitened directions of Mixed_4f, embedded Gaussian."""
    config = NonLocalConfig(
        inter_channels=FORMER_DIRECTIONS,
        nonlocal_type="embedded_gaussian",
        sub_sample=False,
        scale=0.5 * FORMER_DIRECTIONS**-0.5,
        bn_layer=False,
    )
    block = VideoNonLocalBlock.from_config(len(cells[0]), config).eval()
    set_principal(block, torch.cat([rows_of(one) for one in cells]))
    return block


def dot_product(
    features: Features, theta: Tensor | None = None, phi: Tensor | None = None, *, less_empty: bool = False
) -> Tensor:
    """Return the attention received with the dot product of the coarse features, or of their projections."""
    queries = rows_of(features.coarse)
    keys = queries - rows_of(features.empty) if less_empty else queries
    if theta is not None:
        queries, keys = queries @ theta.T, keys @ (theta if phi is None else phi).T
    return _received(queries, keys, features.coarse)


def without(directions: Tensor, padding: Tensor) -> Tensor:
    """Take the padding's directions (K, C) out of the keys' (D, C): what stays is still a 1x1x1 convolution."""
    basis = torch.linalg.qr(padding.T)[0]  # (C, K)
    return directions - directions @ basis @ basis.T


def head_directions(weight: Tensor) -> Tensor:
    """Return classifier weights (K, C) less their mean: with them, cells match that speak for the same classes."""
    return weight - weight.mean(0)


def _received(queries: Tensor, keys: Tensor, like: Tensor) -> Tensor:
    received = mean_row(lambda chunk: dot_product_rows(chunk, keys[None]), queries[None], len(keys))
    return received.view(like.shape[1:])


def cosine(features: Features, temperature: float = COSINE_TEMPERATURE) -> Tensor:
    """Return the attention received with a softmax of the coarse features' cosine."""
    rows = torch.nn.functional.normalize(rows_of(features.coarse), dim=1)[None]
    received = mean_row(lambda chunk: softmax_rows(chunk, rows, scale=1 / temperature), rows, rows.shape[1])
    return received.view(features.coarse.shape[1:])


def dot_product_row(
    features: Features, query: int, theta: Tensor, phi: Tensor | None = None, *, less_empty: bool = False
) -> Tensor:
    """Return what one cell attends to."""
    rows = rows_of(features.coarse)
    keys = (rows - rows_of(features.empty) if less_empty else rows) @ (theta if phi is None else phi).T
    return (keys @ (theta @ rows[query])).view(features.coarse.shape[1:])


def above(row: Tensor, received: Tensor) -> Tensor:
    """Return what one cell attends to less what all cells do, both as multiples of their mean."""
    return row / row.mean() - received / received.mean()


def cosine_row(features: Features, query: int) -> Tensor:
    """Return the cosine of one cell with every cell."""
    rows = torch.nn.functional.normalize(rows_of(features.coarse), dim=1)
    return (rows @ rows[query]).view(features.coarse.shape[1:])


def finer(coarse: Tensor, fine: Tensor, power: float) -> Tensor:
    """Return a coarse map (T', H', W') on the fine cells, times a power of the fine features' norm."""
    repeated = torch.nn.functional.interpolate(coarse[None, None], fine.shape[1:], mode="trilinear")[0, 0]
    return repeated * norm(fine) ** power


def norm(features: Tensor) -> Tensor:
    """Return the length of each cell's features."""
    return features.float().norm(dim=0)


def random_cells(like: Tensor, seed: int) -> Tensor:
    """Return a random map on the cells of another one."""
    return torch.from_numpy(np.random.default_rng(seed).random(tuple(like.shape), np.float32))
