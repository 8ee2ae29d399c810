"""The attention of a transformer's own heads, behind the methods that a non-local block has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from nonlocal_video.models.token_layout import Axes, TokenLayout

_NAME = "nonlocal_video"
_QUERIES_AT_ONCE = 256
_found: ContextVar[list[tuple[Tensor, Tensor, float]]] = ContextVar("_found")


class TokenAttention(ABC):
    """An attention layer: weights are means over its heads, among the patches alone, and sum to 1.

    Dot-product attention with a softmax is the embedded Gaussian of the paper's equation 4.
    """

    nonlocal_type = "embedded_gaussian"

    def __init__(self, module: nn.Module, layout: TokenLayout) -> None:
        self._module, self._layout = module, layout

    def key_size(self, size: Axes) -> Axes:
        """Return the grid of keys for a grid of queries: the same."""
        return size

    def attention(self, tokens: Tensor, queries: Tensor) -> Tensor:
        """Return the attention of some cells: the layer's input (1, N, C) and cells (Q,) -> (1, Q, T' * H' * W')."""
        return _shares(self._rows(tokens, queries))[None]

    def attention_received(self, tokens: Tensor) -> Tensor:
        """Return the mean attention that each cell receives from all: the layer's input -> (1, T' * H' * W')."""
        return _shares(self._column_sums(tokens))[None]

    @abstractmethod
    def _rows(self, tokens: Tensor, queries: Tensor) -> Tensor:
        """Return weights (Q, T' * H' * W'), up to a factor."""

    @abstractmethod
    def _column_sums(self, tokens: Tensor) -> Tensor:
        """Return the sum over queries, (T' * H' * W',), up to a factor."""


class JointAttention(TokenAttention):
    """Every token attends to every token; the layer calls transformers' attention interface."""

    def _rows(self, tokens: Tensor, queries: Tensor) -> Tensor:
        query, key, scale = self._query_and_key(tokens)
        cells = self._layout.token_of_cell(tokens.device)
        weights = (query[:, cells[queries]] @ key.transpose(1, 2) * scale).softmax(dim=-1)  # (heads, Q, N)
        return weights.mean(dim=0)[:, cells]

    def _column_sums(self, tokens: Tensor) -> Tensor:
        query, key, scale = self._query_and_key(tokens)
        cells = self._layout.token_of_cell(tokens.device)
        total = torch.zeros(key.shape[1], dtype=torch.float64, device=key.device)
        for some in cells.split(_QUERIES_AT_ONCE):  # the whole matrix may take gigabytes
            total += (query[:, some] @ key.transpose(1, 2) * scale).softmax(dim=-1).sum(dim=(0, 1), dtype=torch.float64)
        return total[cells].float()

    def _query_and_key(self, tokens: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return what the layer's softmax is of: queries and keys (heads, N, D), with positions, and the scale."""
        with _recording(self._module) as found:
            self._module(tokens)
        query, key, scale = found[0]
        return query[0], key[0], scale


class FrameAttention(TokenAttention):
    """Tokens attend within their frame, as in divided space-time attention: the layer's input is (T', 1 + H' W', C)."""

    def _rows(self, tokens: Tensor, queries: Tensor) -> Tensor:
        weights = self._weights(tokens)
        frame, cell = queries // weights.shape[1], queries % weights.shape[1]
        rows = torch.zeros(len(queries), *weights.shape[:2], device=weights.device)
        rows[torch.arange(len(queries)), frame] = weights[frame, cell]
        return rows.flatten(1)

    def _column_sums(self, tokens: Tensor) -> Tensor:
        return _shares(self._weights(tokens).sum(dim=1)).flatten()

    def _weights(self, tokens: Tensor) -> Tensor:
        """Return the mean over heads among the patches of each frame, (T', H' * W', H' * W')."""
        weights: Tensor = self._module(tokens, output_attentions=True)[1]
        before = self._layout.num_before
        return weights.mean(dim=1)[:, before:, before:]


def _shares(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=-1, keepdim=True)


@contextmanager
def _recording(module: Any) -> Iterator[list[tuple[Tensor, Tensor, float]]]:
    """Have a module's attention recorded instead of computed inside the block; nobody else may run the network."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if _NAME not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        ALL_ATTENTION_FUNCTIONS.register(_NAME, _record)
    found: list[tuple[Tensor, Tensor, float]] = []
    usual = module.config._attn_implementation
    token = _found.set(found)
    module.config._attn_implementation = _NAME
    try:
        yield found
    finally:
        module.config._attn_implementation = usual
        _found.reset(token)


def _record(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_args: Any, scaling: float | None = None, **_kw: Any
) -> tuple[Tensor, None]:
    _found.get().append((query, key, query.shape[-1] ** -0.5 if scaling is None else scaling))
    return value.transpose(1, 2), None
