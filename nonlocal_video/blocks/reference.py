"""The kernels as the paper writes them, with the N x M matrix. The other kernels are tested and timed against them.

`theta` is (B, N, D), `phi` (B, M, D), `g` (B, M, D'); the result is (B, N, D').
"""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_reference(theta: Tensor, phi: Tensor, g: Tensor, *, scale: float = 1.0) -> Tensor:
    """Compute y_i = sum_j softmax_j(scale * theta_i . phi_j) g_j, eq. 2 and 3."""
    weights = torch.softmax(scale * torch.einsum("bnd,bmd->bnm", theta, phi), dim=-1)
    return torch.einsum("bnm,bme->bne", weights, g)


def dot_product_reference(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """Compute y_i = 1/M * sum_j (theta_i . phi_j) g_j, eq. 4."""
    weights = torch.einsum("bnd,bmd->bnm", theta, phi) / phi.shape[1]
    return torch.einsum("bnm,bme->bne", weights, g)


def concatenation_reference(theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor) -> Tensor:
    """Compute y_i = 1/M * sum_j ReLU(w . [theta_i, phi_j]) g_j, eq. 5. weight: (2 D,).

    w . [theta_i, phi_j] is split into w_theta . theta_i + w_phi . phi_j. Taken literally, eq. 5 would hold all pairs of
    rows, 2 D times the matrix, and any other method would look good beside it.
    """
    query_weight, key_weight = weight.chunk(2)
    queries, keys = theta @ query_weight, phi @ key_weight
    weights = torch.relu(queries[:, :, None] + keys[:, None]) / phi.shape[1]
    return torch.einsum("bnm,bme->bne", weights, g)
