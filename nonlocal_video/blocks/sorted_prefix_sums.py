"""Sums over all keys beyond a threshold, by sorting. They make the concatenation kernel O((N + M) log M).

For a query value a_i, key values b_j and vectors v_j,

    step_i = sum_{j: a_i + b_j > 0} v_j        and        ramp_i = sum_j ReLU(a_i + b_j) v_j.

With the keys in descending order, s_1 = -b_(1) <= s_2 = -b_(2) <= ..., the sums of query i run over the first n_i keys,
those with s_j < a_i, and

    P_n = v_(1) + ... + v_(n),
    R_n = R_{n-1} + (s_n - s_{n-1}) P_{n-1},        R_1 = 0: the ramp of a query with a_i = s_n,
    step_i = P_{n_i},        ramp_i = R_{n_i} + (a_i - s_{n_i}) P_{n_i}.

Example: b = (3, 1), so s = (-3, -1). The sums of a query a = 0 run over both, R_2 = 2 v_1 and ramp = 2 v_1 + 1 (v_1 +
v_2), which is 3 v_1 + v_2.

The shorter form a_i P_{n_i} + (b v)-prefix_{n_i} is not used: its two terms grow with the common offset of a and -b and
cancel. Here only non-negative differences of sorted values occur, so an offset changes nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nonlocal_video.blocks.derivatives import batch_as_sets

_BLOCK = 32
"""Number of rows added one after another. Sums of M rows are sums of block sums, so that the rounding error grows with
32 log_32(M) and not with M, even where the device's own cumulative sum adds one by one in float32."""
_CHANNELS = 32
"""Number of channels of v at a time: sums of 10^4 keys then stay in the cache, and few temporary rows are held."""

_MATRIX_ENTRIES = 2**22


def relu_sum(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Compute sum_j ReLU(a_i + b_j) v_j without the N x M matrix, differentiable any number of times.

    The gradients are sums of the same kind, with queries and keys exchanged: ramp sums over the queries for v_j, step
    sums for a_i and b_j. The derivative at a_i + b_j = 0 is 0, as that of ReLU.

    Args:
        queries: a, (B, N).
        keys: b, (B, M).
        values: v, (B, M, D).

    Returns:
        The sums, (B, N, D).
    """
    return _SortedPrefixSums.apply(queries, keys, values)[1]


class _SortedPrefixSums(torch.autograd.Function):
    @staticmethod
    def forward(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if queries.is_meta:  # shapes only
            return _sorted_prefix_sums(queries, keys, values)
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # no branch may depend on a value
            return _propagate_non_finite(*_sorted_prefix_sums(queries, keys, values), queries, keys, values)
        if all(tensor.isfinite().all() for tensor in (queries, keys, values)):
            return _sorted_prefix_sums(queries, keys, values)
        return _sums_with_the_matrix(queries, keys, values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        step, _ = output
        ctx.save_for_backward(*inputs, step)
        ctx.save_for_forward(*inputs, step)
        ctx.set_materialize_grads(False)  # step has no gradient in a first backward pass

    @staticmethod
    def backward(ctx: Any, grad_step: Tensor | None, grad_ramp: Tensor | None) -> tuple[Tensor | None, ...]:
        queries, keys, values, step = ctx.saved_tensors
        grad_queries = grad_keys = grad_values = None
        if grad_ramp is not None:
            step_over_queries, grad_values = _SortedPrefixSums.apply(keys, queries, grad_ramp)
            grad_queries = (grad_ramp * step).sum(dim=2)
            grad_keys = (values * step_over_queries).sum(dim=2)
        if grad_step is not None:
            own = _SortedPrefixSums.apply(keys, queries, grad_step)[0]
            grad_values = own if grad_values is None else grad_values + own
        return grad_queries, grad_keys, grad_values

    @staticmethod
    def jvp(
        ctx: Any, queries_t: Tensor | None, keys_t: Tensor | None, values_t: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        queries, keys, values, step = ctx.saved_tensors
        # All terms weighted by the step: the change of the values, and the change of the keys times the values.
        step_t, ramp_t = torch.zeros_like(step), torch.zeros_like(step)
        if values_t is not None:
            step_t, ramp_t = _SortedPrefixSums.apply(queries, keys, values_t)
        if queries_t is not None:
            ramp_t = ramp_t + queries_t.unsqueeze(2) * step
        if keys_t is not None:
            ramp_t = ramp_t + _SortedPrefixSums.apply(queries, keys, keys_t.unsqueeze(2) * values)[0]
        return step_t, ramp_t

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        step, ramp = _SortedPrefixSums.apply(*batch_as_sets(info.batch_size, in_dims, tensors))
        return (step.unflatten(0, (info.batch_size, -1)), ramp.unflatten(0, (info.batch_size, -1))), (0, 0)


def _propagate_non_finite(
    step: Tensor, ramp: Tensor, queries: Tensor, keys: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Set to NaN every sum that has a number which isn't finite, as the formula does with NaN."""
    nothing = (0 * queries).unsqueeze(2) + (0 * keys).sum(dim=1)[:, None, None] + (0 * values).sum(dim=1, keepdim=True)
    return step + nothing, ramp + nothing


def _sums_with_the_matrix(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the sums as the formula is written, for NaN and infinities, which cannot be sorted.

    A key below a query's threshold adds 0 times its value, which is NaN if the value isn't finite.
    """
    length = max(1, _MATRIX_ENTRIES // max(1, keys.numel()))
    steps, ramps = [], []
    for some in queries.split(length, dim=1):
        sums = some.unsqueeze(2) + keys.unsqueeze(1)  # (B, q, M)
        steps.append((sums > 0).to(values.dtype) @ values)
        ramps.append(torch.relu(sums) @ values)
    return torch.cat(steps, dim=1), torch.cat(ramps, dim=1)


def _sorted_prefix_sums(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Compute step and ramp, (B, N, D) each, from (B, N), (B, M), (B, M, D)."""
    num_keys, depth = keys.shape[1], values.shape[2]
    thresholds, order = (-keys).sort(dim=1)  # s
    seen = torch.searchsorted(thresholds, queries.contiguous())  # n_i in [0, M]: how many s_j < a_i
    index = (seen - 1).clamp(min=0)  # of s_{n_i}; where n_i = 0 the step is 0, and so is the first ramp
    beyond = (queries - thresholds.gather(1, index)).unsqueeze(2)
    # One row before the first, for n = 0, and enough rows after the last to fill a block.
    tail = -(num_keys + 1) % _BLOCK
    order = F.pad(order, (1, tail))
    gaps = F.pad(thresholds.diff(dim=1), (1, 1 + tail)).unsqueeze(2)  # row n: s_{n+1} - s_n; 0 for n = 0 and n >= M
    step, ramp = values.new_empty(*queries.shape, depth), values.new_empty(*queries.shape, depth)
    for start in range(0, depth, _CHANNELS):
        channels = slice(start, start + _CHANNELS)
        counts = _take_rows(values[:, :, channels].contiguous(), order)
        counts[:, 0] = counts[:, num_keys + 1 :] = 0
        _accumulate(counts)  # row n: P_n
        ramps = _accumulate(counts * gaps)  # row n: R_{n+1}
        step[:, :, channels] = own_step = _take_rows(counts, seen)
        ramp[:, :, channels] = _take_rows(ramps, index).addcmul_(beyond, own_step)
    return step, ramp


def _accumulate(rows: Tensor) -> Tensor:
    """Make each row the sum of itself and all before it, in place: (B, L, D), contiguous, L a multiple of _BLOCK."""
    blocks = rows.unflatten(1, (-1, _BLOCK))  # (B, L / _BLOCK, _BLOCK, D)
    blocks.cumsum_(dim=2)
    num_before = blocks.shape[1] - 1
    if num_before:
        before = _accumulate(F.pad(blocks[:, :-1, -1], (0, 0, 0, -num_before % _BLOCK)))
        blocks[:, 1:] += before[:, :num_before].unsqueeze(2)
    return rows


def _take_rows(rows: Tensor, indices: Tensor) -> Tensor:
    """Return rows[b, indices[b, i]]: (B, L, D), (B, Q) -> (B, Q, D). Copies whole rows; `gather` works by elements."""
    batch, length, depth = rows.shape
    first = length * torch.arange(batch, device=rows.device).unsqueeze(1)
    return rows.view(batch * length, depth).index_select(0, (indices + first).flatten()).view(*indices.shape, depth)
