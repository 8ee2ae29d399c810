"""Statistics of the attention of non-local blocks, query row by query row, without the N x M map."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nonlocal_video.analysis.formulas import position_sets
from nonlocal_video.analysis.networks import nonlocal_blocks
from nonlocal_video.attention.capture import forward_and_capture
from nonlocal_video.blocks import NonLocalBlock
from nonlocal_video.errors import ModelError
from nonlocal_video.models.folding import fold_batch_norms

CHUNK_ENTRIES = 2**22
"""Number of attention weights held at a time: 16 MiB in float32."""
SPARSE_SHARE = 0.1
"""A key counts as ignored if its weight is below this share of an equal weight."""

_MEANS = (
    "entropy_nats",
    "maximum_entropy_nats",
    "effective_positions",
    "self_share",
    "own_frame_share",
    "sparsity",
    "maximum",
    "variance",
    "residual_share",
    "out_weight_norm",
    "empty_share",
)


@dataclass(frozen=True, repr=False)
class AttentionPattern:
    """Statistics of one block's attention for one clip (or image): means over its query rows.

    A row is its weights' absolute values over their sum; for the softmax kernels these are the weights. A row of zeros
    (a concatenation whose ReLU is inactive) has no pattern and only counts in `empty_share`.
    """

    block: str
    """Dotted name of the block."""
    clip: str
    """Name of the clip."""
    nonlocal_type: str
    """Pairwise function of the block."""
    size: tuple[int, int, int]
    """Number of queries along (T, H, W); an image has one frame."""
    num_visible: int
    """Number M of keys that a query attends to."""
    entropies: NDArray[np.float64]
    """Entropy of each row in nats, (N - empty,)."""
    self_share: float
    """Weight on the key that contains the query itself."""
    own_frame_share: float
    """Weight on the query's own frame."""
    share_by_distance: tuple[float, ...]
    """Weight on frames 0, 1, 2, ... feature frames away, over all queries; sums to 1."""
    equal_share_by_distance: tuple[float, ...]
    """`share_by_distance` if all keys had equal weights: what the block's shape alone explains."""
    sparsity: float
    """Share of keys with less than a tenth of an equal weight."""
    maximum: float
    """Largest weight, averaged over rows."""
    variance: float
    """Variance of the weights in a row, averaged over rows."""
    empty_share: float
    """Share of rows without weights."""
    residual_share: float
    """Norm of the block's contribution over the norm of its input, ||W y|| / ||x||."""
    out_weight_norm: float
    """Norm of W with the batch norm folded in."""
    is_identity: bool
    """Whether the block adds exactly zero to any input, as a new one does: its attention then changes no prediction."""

    def __post_init__(self) -> None:
        num_rows = round(math.prod(self.size) * (1 - self.empty_share))
        if self.entropies.shape != (num_rows,):
            raise ValueError(f"entropies has shape {self.entropies.shape}; {self.size} has {num_rows} filled rows.")
        if not (math.isfinite(self.residual_share) and np.isfinite(self.entropies).all()):
            raise ModelError(f"Block {self.block!r} gave values that are not finite; its weights are damaged or wrong.")
        if num_rows and not math.isclose(sum(self.share_by_distance), 1, abs_tol=1e-3):
            raise ValueError(f"share_by_distance = {self.share_by_distance} should sum to 1.")

    def __repr__(self) -> str:
        return f"AttentionPattern({self.block!r}, {self.clip!r}, entropy={self.entropy_nats:.2f} nats)"

    @property
    def maximum_entropy_nats(self) -> float:
        """Entropy of equal weights on all keys: ln M."""
        return math.log(self.num_visible)

    @property
    def entropy_nats(self) -> float:
        """Mean entropy of the rows."""
        return float(self.entropies.mean()) if len(self.entropies) else math.nan

    @property
    def effective_positions(self) -> float:
        """Mean over rows of exp(entropy): the number of equally attended keys with the same entropy."""
        return float(np.exp(self.entropies).mean()) if len(self.entropies) else math.nan

    def to_row(self) -> dict[str, Any]:
        """Return the statistics as column -> plain value; the rows' entropies are given as deciles."""
        values = asdict(self)
        entropies = values.pop("entropies")
        deciles = np.quantile(entropies, np.linspace(0, 1, 11)).tolist() if len(entropies) else []
        return {
            **values,
            "size": list(self.size),
            "share_by_distance": list(self.share_by_distance),
            "equal_share_by_distance": list(self.equal_share_by_distance),
            "entropy_nats": _plain(self.entropy_nats),
            "maximum_entropy_nats": self.maximum_entropy_nats,
            "effective_positions": _plain(self.effective_positions),
            "entropy_deciles": deciles,
        }


def network_patterns(
    network: nn.Module, inputs: Tensor, *, names: Sequence[str] | None = None
) -> list[AttentionPattern]:
    """Compute the statistics of every block for every sample of a batch.

    Args:
        network: A network, run in eval mode; it does not change.
        inputs: Normalised inputs (B, 3, T, H, W) or (B, 3, H, W).
        names: Names of the samples; None is "0", "1", ...

    Raises:
        ValueError: If there are more or fewer names than samples.
        ModelError: If a block gives values that are not finite.
    """
    names = [str(index) for index in range(len(inputs))] if names is None else names
    if len(names) != len(inputs):
        raise ValueError(f"{len(names)} names do not fit {len(inputs)} samples.")
    evaluated = copy.deepcopy(network).eval()
    blocks = nonlocal_blocks(evaluated)
    with torch.no_grad():
        _, kept = forward_and_capture(evaluated, inputs, capture_inputs=list(blocks))
    return [
        block_pattern(block, kept.inputs[name][index : index + 1], block_name=name, clip=clip)
        for index, clip in enumerate(names)
        for name, block in blocks.items()
    ]


def block_pattern(block: NonLocalBlock, x: Tensor, *, block_name: str = "", clip: str = "") -> AttentionPattern:
    """Compute the statistics of one block in eval mode for its input (1, C, *size), in chunks of queries."""
    if len(x) != 1:
        raise ValueError(f"x has {len(x)} samples; give one, (1, C, *size).")
    block = copy.deepcopy(block).eval()
    with torch.no_grad():
        residual, norm = (block(x) - x).double().norm(), x.double().norm()
        sums = _RowSums(block, tuple(x.shape[2:]))
        step = max(1, CHUNK_ENTRIES // sums.num_keys)
        for start in range(0, sums.num_queries, step):
            queries = torch.arange(start, min(start + step, sums.num_queries), device=x.device)
            sums.add(queries, block.attention(x, queries)[0])
        folded = fold_batch_norms(block)  # an nn.Identity if the block is the identity
        out_norm = float(folded.W.weight.double().norm()) if isinstance(folded, NonLocalBlock) else 0.0
    return sums.pattern(
        block_name,
        clip,
        residual_share=float(residual / norm) if norm != 0 else 0.0,
        out_weight_norm=out_norm,
    )


def summary_rows(patterns: Sequence[AttentionPattern]) -> list[dict[str, Any]]:
    """Return a row for each block: means over clips, and how much clips differ in their mean entropy."""
    by_block: dict[str, list[AttentionPattern]] = {}
    for pattern in patterns:
        by_block.setdefault(pattern.block, []).append(pattern)
    rows = []
    for block, found in by_block.items():
        means = {name: _plain(np.mean([getattr(pattern, name) for pattern in found])) for name in _MEANS}
        spread = _plain(np.std([pattern.entropy_nats for pattern in found]))
        rows.append(
            {
                "block": block,
                "nonlocal_type": found[0].nonlocal_type,
                "num_clips": len(found),
                "num_visible": found[0].num_visible,
                **means,
                "entropy_deviation_over_clips": spread,
                "is_identity": found[0].is_identity,
            }
        )
    return rows


class _RowSums:
    """Accumulator of statistics of attention rows."""

    def __init__(self, block: NonLocalBlock, size: tuple[int, ...]) -> None:
        self.block = block
        self.size = _as_video(size)
        self.key_size = _as_video(block.key_size(size))
        self.num_queries, self.num_keys = math.prod(self.size), math.prod(self.key_size)
        sets = position_sets(block.config, size)
        self.num_visible = sets.num_keys
        self.entropies: list[Tensor] = []
        self.by_distance = torch.zeros(self.size[0], dtype=torch.float64)
        self.equal_by_distance = torch.zeros(self.size[0], dtype=torch.float64)
        self.self_sum = self.sparse = self.maximum = self.variance = 0.0
        self.with_own_key = self.filled = 0

    def add(self, queries: Tensor, weights: Tensor) -> None:
        """Add rows of queries (Q,): weights (Q, M) on all keys of the clip, zero outside a query's set."""
        frame, row, column = _coordinates(queries, self.size)
        totals = weights.abs().sum(dim=1, dtype=torch.float64)  # (Q,)
        filled = totals > 0
        queries_frame, frame, row, column = frame, frame[filled], row[filled], column[filled]
        visible = self._visible_frames(queries_frame)  # (Q, T)
        self._add_equal(queries_frame, visible)
        shares = weights[filled].abs().double() / totals[filled, None]  # (Q', M)
        self.filled += len(shares)
        self.entropies.append(torch.special.entr(shares).sum(dim=1).cpu())
        per_frame = shares.unflatten(1, (self.key_size[0], -1)).sum(dim=2)  # (Q', T)
        distance = (torch.arange(self.key_size[0], device=frame.device) - frame[:, None]).abs()
        self.by_distance.index_add_(0, distance.flatten().cpu(), per_frame.flatten().cpu())
        # The pooled key that contains a query; pooling drops the last row and column of an odd side.
        step_y, step_x = (n // (m + 1) + 1 for n, m in zip(self.size[1:], self.key_size[1:], strict=True))
        key_row, key_column = row // step_y, column // step_x
        inside = (key_row < self.key_size[1]) & (key_column < self.key_size[2])
        key = (frame * self.key_size[1] + key_row) * self.key_size[2] + key_column
        self.self_sum += float(shares[inside].gather(1, key[inside, None]).sum())
        self.with_own_key += int(inside.sum())
        equal = 1 / self.num_visible
        # Keys outside the set have weight 0. They are not the block's choice, so they are subtracted again.
        unseen = self.num_keys - self.num_visible
        self.sparse += float((shares < SPARSE_SHARE * equal).sum() - unseen * len(shares)) / self.num_visible
        self.maximum += float(shares.amax(dim=1).sum()) if len(shares) else 0.0
        self.variance += float((shares.square().sum(dim=1) / self.num_visible - equal**2).sum())

    def pattern(self, block_name: str, clip: str, *, residual_share: float, out_weight_norm: float) -> AttentionPattern:
        """Return the means over the rows added so far."""
        rows = max(1, self.filled)
        by_distance = (self.by_distance / rows).tolist()
        return AttentionPattern(
            block=block_name,
            clip=clip,
            nonlocal_type=self.block.config.nonlocal_type,
            size=self.size,
            num_visible=self.num_visible,
            entropies=torch.cat(self.entropies).numpy(),
            self_share=self.self_sum / max(1, self.with_own_key),
            own_frame_share=by_distance[0],
            share_by_distance=tuple(by_distance),
            equal_share_by_distance=tuple((self.equal_by_distance / self.num_queries).tolist()),
            sparsity=self.sparse / rows,
            maximum=self.maximum / rows,
            variance=self.variance / rows,
            empty_share=1 - self.filled / self.num_queries,
            residual_share=residual_share,
            out_weight_norm=out_weight_norm,
            is_identity=self.block.is_identity,
        )

    def _visible_frames(self, frame: Tensor) -> Tensor:
        """Return a mask (Q, T): whether queries in these frames (Q,) attend to each frame."""
        config, num_frames = self.block.config, self.size[0]
        keys = torch.arange(num_frames, device=frame.device)
        if config.mode == "space_only":
            return keys == frame[:, None]
        group = config.temporal_groups or num_frames
        return keys // group == frame[:, None] // group

    def _add_equal(self, frame: Tensor, visible: Tensor) -> None:
        distance = (torch.arange(self.size[0], device=frame.device) - frame[:, None]).abs()
        share = visible.double() / visible.sum(dim=1, keepdim=True)
        self.equal_by_distance.index_add_(0, distance.flatten().cpu(), share.flatten().cpu())


def _plain(number: float | np.floating[Any]) -> float | None:
    """Convert a number to a JSON value; a mean over no rows is None."""
    return float(number) if math.isfinite(number) else None


def _as_video(size: Sequence[int]) -> tuple[int, int, int]:
    """Return (L,) or (H, W) as the size of one frame."""
    if len(size) == 3:
        return size[0], size[1], size[2]
    return (1, size[0], size[1]) if len(size) == 2 else (1, 1, size[0])


def _coordinates(indices: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    pixels = size[1] * size[2]
    return indices // pixels, indices % pixels // size[2], indices % size[2]


def pattern_table(patterns: Sequence[AttentionPattern]) -> list[Mapping[str, Any]]:
    """Return flat rows for a CSV file, one for each clip and block; lists become numbered columns."""
    rows: list[Mapping[str, Any]] = []
    num_distances = max((len(pattern.share_by_distance) for pattern in patterns), default=0)
    for pattern in patterns:
        row = pattern.to_row()
        deciles = row.pop("entropy_deciles")
        shares, equal = row.pop("share_by_distance"), row.pop("equal_share_by_distance")
        frames, height, width = row.pop("size")
        flat = {**row, "frames": frames, "height": height, "width": width}
        flat |= {f"entropy_decile_{index}": value for index, value in enumerate(deciles)}
        for distance in range(num_distances):
            known = distance < len(shares)
            flat[f"share_at_distance_{distance}"] = shares[distance] if known else None
            flat[f"equal_share_at_distance_{distance}"] = equal[distance] if known else None
        rows.append(flat)
    return rows
