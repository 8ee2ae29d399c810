"""The non-local operation as pure functions: y_i = 1/C(x) * sum_j f(x_i, x_j) g(x_j) (Wang et al., CVPR 2018, eq. 1).

Everywhere `theta` is (B, N, D), a row for each query; `phi` is (B, M, D) and `g` is (B, M, D'), a row for each key; the
result is (B, N, D'). N and M may differ. B counts independent sets of positions, which are more than the batch where a
block works on frames or pixels one by one.

The `*_rows` functions return the weights f / C, (B, Q, M) for the Q given queries. The `*_kernel` functions return y
and hold the N x M matrix only where it is no larger than the inputs. Products of float16 and bfloat16 are accumulated
in float32. `nonlocal_video.blocks.reference` has the same functions as the paper writes them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nonlocal_video.blocks.derivatives import differentiable_once, under_transform
from nonlocal_video.blocks.precision import accumulation_dtype, without_autocast
from nonlocal_video.blocks.sorted_prefix_sums import relu_sum
from nonlocal_video.blocks.tiled_softmax import tiled_softmax

CHUNK_ENTRIES = 2**22
"""Entries of the N x M matrix held at a time by the functions that work in chunks: 16 MiB in float32."""
_FUSED_QUERIES = 1024
"""Number of queries passed to the fused kernel at a time on a CPU: four of its own tiles."""
_SORTING_COSTS = 256
"""Matrix products per key (or query) and channel of g that take as long as sorting and adding, measured on a CPU. With
as many keys as queries, sorting is faster from about 512 of them."""

_NO_SECOND_DERIVATIVE = (
    "PyTorch's fused softmax kernel has no second derivative; memory_efficient(block) computes the same and has one."
)


def softmax_rows(theta: Tensor, phi: Tensor, *, scale: float = 1.0) -> Tensor:
    """Compute softmax_j(scale * theta_i . phi_j), (B, Q, M), eq. 2 (Gaussian) and 3 (embedded Gaussian)."""
    with without_autocast(theta):
        dtype = accumulation_dtype(theta)
        scores = (scale * theta.to(dtype)) @ phi.to(dtype).transpose(1, 2)
        return torch.softmax(scores, dim=-1).to(theta.dtype)


def softmax_kernel(theta: Tensor, phi: Tensor, g: Tensor, *, scale: float = 1.0) -> Tensor:
    """Compute y_i = sum_j softmax_j(scale * theta_i . phi_j) g_j, eq. 2 and 3. -> (B, N, D')."""
    num_queries, num_keys, width = theta.shape[1], phi.shape[1], theta.shape[2] + g.shape[2]
    if num_queries * num_keys <= (num_queries + num_keys) * width:
        # The matrix is no larger than the inputs, so a fused kernel would save nothing; and many small sets (each pixel
        # along time) would exceed the batch size that some fused kernels support.
        return softmax_rows(theta, phi, scale=scale) @ g
    if under_transform() or (theta.is_cuda and theta.dtype == torch.float64):  # float64: no fused CUDA kernel takes it
        return memory_efficient_softmax_kernel(theta, phi, g, scale=scale)
    # Rows of equal depth, contiguous (B, 1, L, D): otherwise the fused CPU kernel silently falls back to the matrix.
    # The CUDA kernels also need rows of a multiple of 16 bytes. Zeros appended to a row change no product, and those of
    # g are cut off at the end.
    wants_gradient = torch.is_grad_enabled() and any(rows.requires_grad for rows in (theta, phi, g))
    if wants_gradient and not torch.compiler.is_compiling():
        theta, phi, g = differentiable_once((theta, phi, g), _NO_SECOND_DERIVATIVE)
    value_depth = g.shape[2]
    depth = max(theta.shape[2], value_depth)
    depth += -depth % 8 if theta.is_cuda else 0
    key, value = (_padded(rows, depth).contiguous().unsqueeze(1) for rows in (phi, g))

    def attend(queries: Tensor) -> Tensor:
        query = _padded(queries, depth).contiguous().unsqueeze(1)
        return F.scaled_dot_product_attention(query, key, value, scale=scale).squeeze(1)[..., :value_depth]

    num_chunks = num_queries // _FUSED_QUERIES
    if theta.is_cuda or wants_gradient or num_chunks < 2 or torch.compiler.is_compiling():
        return attend(theta)
    # On a CPU the fused kernel works through the queries tile by tile anyway. Given a few at a time, it needs a
    # contiguous copy of only those.
    result = theta.new_empty(theta.shape[0], num_queries, value_depth)
    bounds = [chunk * _FUSED_QUERIES for chunk in range(1, num_chunks)]  # the last chunk also takes the remainder
    for queries, rows in zip(theta.tensor_split(bounds, 1), result.tensor_split(bounds, 1), strict=True):
        rows.copy_(attend(queries))
    return result


def memory_efficient_softmax_kernel(theta: Tensor, phi: Tensor, g: Tensor, *, scale: float = 1.0) -> Tensor:
    """Compute `softmax_kernel` in tiles of CHUNK_ENTRIES weights, forward and backward, on any device and dtype."""
    return tiled_softmax(theta, phi, g, scale=scale, tile_entries=CHUNK_ENTRIES)


def dot_product_rows(theta: Tensor, phi: Tensor) -> Tensor:
    """Compute theta_i . phi_j / M, eq. 4. (B, Q, D) -> (B, Q, M)."""
    with without_autocast(theta):
        dtype = accumulation_dtype(theta)
        return (theta.to(dtype) @ (phi.to(dtype) / phi.shape[1]).transpose(1, 2)).to(theta.dtype)


def dot_product_kernel(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """Compute y_i = 1/M * sum_j (theta_i . phi_j) g_j, eq. 4. -> (B, N, D').

    The two products are associative: theta (phi^T g) costs D D' (N + M) multiplications and holds D x D';
    (theta phi^T) g costs N M (D + D') and holds N x M. The cheaper order is used.
    """
    num_queries, num_keys, depth, value_depth = theta.shape[1], phi.shape[1], theta.shape[2], g.shape[2]
    divisor = num_keys
    if theta.dtype == torch.float16:
        # Half of the division on each side and before the sum over M keys, which would overflow otherwise. All of it on
        # one side would underflow.
        phi, g, divisor = phi * num_keys**-0.5, g * num_keys**-0.5, 1
    if depth * value_depth * (num_queries + num_keys) <= num_queries * num_keys * (depth + value_depth):
        return theta @ ((phi.transpose(1, 2) @ g) / divisor)
    return (theta @ phi.transpose(1, 2)) @ (g / divisor)


def concatenation_rows(theta: Tensor, phi: Tensor, weight: Tensor) -> Tensor:
    """Compute ReLU(w . [theta_i, phi_j]) / M, eq. 5. (B, Q, D) -> (B, Q, M); weight: (2 D,)."""
    queries, keys = _split_projection(theta, phi, weight)
    sums = queries.unsqueeze(2) + keys.unsqueeze(1)  # (B, Q, 1) + (B, 1, M)
    return (torch.relu(sums) / phi.shape[1]).to(theta.dtype)


def concatenation_kernel(theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor) -> Tensor:
    """Compute y_i = 1/M * sum_j ReLU(w . [theta_i, phi_j]) g_j, eq. 5. -> (B, N, D').

    ReLU(a_i + b_j) with a_i = w_theta . theta_i and b_j = w_phi . phi_j is linear in b_j beyond b_j = -a_i. With the
    keys sorted by b_j, sums over them are differences of prefix sums: O((N + M) log M) comparisons and O((N + M) D')
    additions. See `nonlocal_video.blocks.sorted_prefix_sums`.
    """
    num_queries, num_keys, width = theta.shape[1], phi.shape[1], theta.shape[2] + g.shape[2]
    if num_queries * num_keys <= (num_queries + num_keys) * min(width, _SORTING_COSTS):
        # As with the softmax: the matrix is no larger than the inputs; and so few products are faster than sorting.
        return concatenation_rows(theta, phi, weight) @ g
    queries, keys = _split_projection(theta, phi, weight)
    return relu_sum(queries, keys, g.to(queries.dtype)).div_(num_keys).to(g.dtype)


def mean_row(rows: Callable[[Tensor], Tensor], theta: Tensor, num_keys: int) -> Tensor:
    """Return the mean over all queries of the weights from `rows`, without holding N x M: (B, N, D) -> (B, M)."""
    dtype = accumulation_dtype(theta)
    total = sum(rows(chunk).sum(dim=1, dtype=dtype) for chunk in query_chunks(theta, num_keys))
    assert isinstance(total, Tensor)  # there is at least one chunk
    return (total / theta.shape[1]).to(theta.dtype)


def query_chunks(theta: Tensor, num_keys: int) -> tuple[Tensor, ...]:
    """Split theta along N into chunks whose weights have at most CHUNK_ENTRIES entries (or one query each)."""
    return theta.split(max(1, CHUNK_ENTRIES // max(1, theta.shape[0] * num_keys)), dim=1)


def _split_projection(theta: Tensor, phi: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Split w . [theta_i, phi_j] = a_i + b_j, so that no pair of rows is written out: -> a (B, N), b (B, M)."""
    with without_autocast(theta):
        dtype = accumulation_dtype(theta)
        query_weight, key_weight = weight.to(dtype).chunk(2)
        return theta.to(dtype) @ query_weight, phi.to(dtype) @ key_weight


def _padded(rows: Tensor, depth: int) -> Tensor:
    return rows if rows.shape[2] == depth else F.pad(rows, (0, depth - rows.shape[2]))
