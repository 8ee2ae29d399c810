"""The non-local operation as pure functions: y_i = 1/C(x) * sum_j f(x_i, x_j) g(x_j) (Wang et al., CVPR 2018, eq. 1).

Everywhere `theta` is (B, N, D), one row a query; `phi` is (B, M, D) and `g` is (B, M, D'), one row a key; the result
is (B, N, D'). N and M need not be equal. B counts independent sets of positions, which is more than the batch where
a block works on frames or places one by one.

The `*_rows` functions give the weights f / C themselves, (B, Q, M) for the Q queries that they are given. The
`*_kernel` functions give y and avoid holding the N x M matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_ENTRIES = 2**22
"""Entries of the N x M matrix held at a time by the functions that walk over it: 16 MiB in float32."""


def softmax_rows(theta: Tensor, phi: Tensor, *, scale: float = 1.0) -> Tensor:
    """softmax_j(scale * theta_i . phi_j), eq. 2 (Gaussian) and 3 (embedded Gaussian). (B, Q, D) -> (B, Q, M)."""
    return torch.softmax(scale * (theta @ phi.transpose(1, 2)), dim=-1)


def softmax_kernel(theta: Tensor, phi: Tensor, g: Tensor, *, scale: float = 1.0) -> Tensor:
    """y_i = sum_j softmax_j(scale * theta_i . phi_j) g_j, eq. 2 and 3. -> (B, N, D')."""
    num_queries, num_keys, width = theta.shape[1], phi.shape[1], theta.shape[2] + g.shape[2]
    if num_queries * num_keys <= (num_queries + num_keys) * width:
        # The matrix is no larger than what comes in, so there is nothing to save; and many small sets (each place
        # along time) would exceed the batch that some fused kernels take.
        return softmax_rows(theta, phi, scale=scale) @ g
    # Rows of one depth, contiguous (B, 1, L, D): otherwise the fused CPU kernel silently falls back to the matrix.
    # Zeros at the end of a row change no product, and those of g are cut off again.
    depth, value_depth = theta.shape[2], g.shape[2]
    widest = max(depth, value_depth)
    query, key = (F.pad(rows, (0, widest - depth)).contiguous().unsqueeze(1) for rows in (theta, phi))
    value = F.pad(g, (0, widest - value_depth)).contiguous().unsqueeze(1)
    return F.scaled_dot_product_attention(query, key, value, scale=scale).squeeze(1)[..., :value_depth]


def dot_product_rows(theta: Tensor, phi: Tensor) -> Tensor:
    """theta_i . phi_j / M, eq. 4. (B, Q, D) -> (B, Q, M)."""
    return theta @ (phi.transpose(1, 2) / phi.shape[1])


def dot_product_kernel(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """y_i = 1/M * sum_j (theta_i . phi_j) g_j, eq. 4. -> (B, N, D').

    Nothing stands between the two products, so they associate either way: theta (phi^T g) costs D D' (N + M)
    multiplications and holds D x D', (theta phi^T) g costs N M (D + D') and holds N x M. The cheaper one is taken.
    """
    num_queries, num_keys, depth, value_depth = theta.shape[1], phi.shape[1], theta.shape[2], g.shape[2]
    if depth * value_depth * (num_queries + num_keys) <= num_queries * num_keys * (depth + value_depth):
        # Divided before it is summed over M keys: float16 would overflow otherwise.
        return theta @ ((phi / num_keys).transpose(1, 2) @ g)
    return dot_product_rows(theta, phi) @ g


def concatenation_rows(theta: Tensor, phi: Tensor, weight: Tensor) -> Tensor:
    """ReLU(w . [theta_i, phi_j]) / M, eq. 5. (B, Q, D) -> (B, Q, M); weight: (2 D,).

    w . [theta_i, phi_j] = w_theta . theta_i + w_phi . phi_j, so no pair of rows is ever written out.
    """
    query_weight, key_weight = weight.chunk(2)
    sums = (theta @ query_weight).unsqueeze(2) + (phi @ key_weight).unsqueeze(1)  # (B, Q, 1) + (B, 1, M)
    return torch.relu(sums) / phi.shape[1]


def concatenation_kernel(theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor) -> Tensor:
    """y_i = 1/M * sum_j ReLU(w . [theta_i, phi_j]) g_j, eq. 5. -> (B, N, D').

    Queries are taken in chunks, so that the N x M matrix is not held at inference (autograd keeps every chunk).
    """
    chunks = _query_chunks(theta, phi.shape[1])
    return torch.cat([concatenation_rows(chunk, phi, weight) @ g for chunk in chunks], dim=1)


def mean_row(rows: Callable[[Tensor], Tensor], theta: Tensor, num_keys: int) -> Tensor:
    """The mean over all queries of the weights that `rows` gives, without holding N x M: (B, N, D) -> (B, M)."""
    total = sum(rows(chunk).sum(dim=1) for chunk in _query_chunks(theta, num_keys))
    assert isinstance(total, Tensor)  # there is at least one chunk
    return total / theta.shape[1]


def _query_chunks(theta: Tensor, num_keys: int) -> tuple[Tensor, ...]:
    """theta in pieces along N whose weights have at most CHUNK_ENTRIES entries (or one query each)."""
    return theta.split(max(1, CHUNK_ENTRIES // (theta.shape[0] * num_keys)), dim=1)
