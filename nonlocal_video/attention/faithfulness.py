"""Faithfulness of a map: how a class's score changes when the pixels that the map ranks first are removed.

Deletion and insertion curves are those of Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of
Black-box Models" (BMVC 2018), here over every pixel of every frame of the network's input. The test with random weights
is that of Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018).

A curve alone says little: removing any region of that size lowers the score. Hence the controls: the same map
displaced, the same map averaged over time, and the centre of the frame, where most videos have their subject.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import integrate, ndimage, stats
from torch import Tensor, nn

from nonlocal_video.attention.geometry import CellGrid
from nonlocal_video.errors import UsageError

Score = Callable[[Tensor], Sequence[float]]
"""A function from network inputs (B, 3, T, H, W) to the probability of one class in each, (B,)."""
Baseline = Literal["blur", "mean_colour"]
"""Replacement of a removed pixel: the blurred frame, or the frame's mean colour."""

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0)
BLUR_SHARE = 1 / 16
"""Standard deviation of the blur as a share of the input's side: 14 pixels of 224."""


@dataclass(frozen=True)
class Curve:
    """Probability of a class against the share of the clip that was deleted, or inserted.

    Raises:
        ValueError: If the numbers of fractions and scores differ.

    Example:
        >>> Curve(fractions=(0.0, 0.5, 1.0), scores=(0.9, 0.3, 0.1)).area
        0.4
    """

    fractions: tuple[float, ...]
    """Shares of all pixels, 0 to 1, ascending."""
    scores: tuple[float, ...]
    """Probability at each share."""

    def __post_init__(self) -> None:
        check_fractions(self.fractions)
        if len(self.scores) != len(self.fractions):
            raise ValueError(f"{len(self.scores) = } should be {len(self.fractions) = }.")

    @property
    def area(self) -> float:
        """Area under the curve by the trapezoid rule, 0 to 1.

        Raises:
            ValueError: If the curve does not run from 0 to 1.
        """
        if (self.fractions[0], self.fractions[-1]) != (0, 1):
            raise ValueError(f"{self.fractions = } should begin with 0 and end with 1; other areas cannot be compared.")
        return float(integrate.trapezoid(self.scores, self.fractions))


@dataclass(frozen=True)
class Curves:
    """Deletion and insertion curve of one ranking of the pixels."""

    deletion: Curve
    """Curve with the strongest pixels removed first: the smaller its area, the better the ranking."""
    insertion: Curve
    """Curve with the strongest pixels inserted first: the greater its area, the better."""


class Perturbation:
    """One clip whose pixels are removed or inserted while a class's score is recorded.

    Args:
        score: The network's probability of one class; in inference mode, or the curves would be noise.
        inputs: Network input (1, 3, T, H, W).
        baseline: The same clip without content, of the same shape; see `make_baseline`.
        batch_size: Number of clips passed to `score` at a time.
        on_pass: Called with the number of clips after each call of `score`.

    Raises:
        ValueError: If the shapes differ or `batch_size` is below 1.
    """

    def __init__(
        self,
        score: Score,
        inputs: Tensor,
        baseline: Tensor,
        *,
        batch_size: int = 1,
        on_pass: Callable[[int], None] = lambda clips: None,
    ) -> None:
        if inputs.ndim != 5 or inputs.shape[0] != 1 or inputs.shape != baseline.shape:
            raise ValueError(
                f"inputs and baseline have shapes {tuple(inputs.shape)} and {tuple(baseline.shape)}; "
                "they should be the same (1, channels, T, H, W)."
            )
        if batch_size < 1:
            raise ValueError(f"{batch_size = } should be at least 1.")
        self.inputs, self.baseline = inputs, baseline
        self._score, self._batch_size, self._on_pass = score, batch_size, on_pass

    @cached_property
    def own_score(self) -> float:
        """Score of the unchanged clip, where deletion begins and insertion ends."""
        return self._scores([np.zeros(self.size, bool)])[0]

    @cached_property
    def baseline_score(self) -> float:
        """Score of the baseline, where deletion ends and insertion begins."""
        return self._scores([np.ones(self.size, bool)])[0]

    @property
    def size(self) -> tuple[int, int, int]:
        """Size (T, H, W) of the input."""
        num_frames, height, width = self.inputs.shape[2:]
        return num_frames, height, width

    def curves(self, values: NDArray[np.float32], fractions: Sequence[float] = FRACTIONS) -> Curves:
        """Compute the deletion and insertion curves of a map's ranking.

        Args:
            values: Map (T, H, W), see `upsample`.
            fractions: Shares of the pixels, ascending. 0 and 1 cost no forward pass beyond the clip's first two.

        Raises:
            UsageError: If the fractions do not ascend within 0 to 1, or all values are equal.
        """
        check_fractions(fractions)
        ranks = rank_pixels(values)
        inner = [fraction for fraction in fractions if 0 < fraction < 1]
        first = [self._first(ranks, fraction) for fraction in inner]
        without, only = self._scores(first), self._scores(~pixels for pixels in first)
        deletion = {0.0: self.own_score, 1.0: self.baseline_score, **dict(zip(inner, without, strict=True))}
        insertion = {0.0: self.baseline_score, 1.0: self.own_score, **dict(zip(inner, only, strict=True))}
        return Curves(
            deletion=Curve(tuple(fractions), tuple(deletion[fraction] for fraction in fractions)),
            insertion=Curve(tuple(fractions), tuple(insertion[fraction] for fraction in fractions)),
        )

    def scores_without(self, maps: Iterable[NDArray[np.float32]], fraction: float) -> list[float]:
        """Compute the score without the strongest `fraction` of the pixels, for each of several maps (T, H, W)."""
        check_fractions([fraction])
        return self._scores(self._first(rank_pixels(values), fraction) for values in maps)

    def _first(self, ranks: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
        """Return a mask (T, H, W) of the pixels that are ranked first."""
        if ranks.shape != self.size:
            raise ValueError(f"a map of {ranks.shape} should have a value for each pixel of the input, {self.size}.")
        first: NDArray[np.bool_] = ranks < round(fraction * ranks.size)
        return first

    def _scores(self, taken_away: Iterable[NDArray[np.bool_]]) -> list[float]:
        """Compute the score of the clip without each of the given masks (T, H, W)."""
        masks = iter(taken_away)
        scores: list[float] = []
        while batch := list(itertools.islice(masks, self._batch_size)):
            hidden = torch.from_numpy(np.stack(batch))[:, None].to(self.inputs.device)  # (B, 1, T, H, W)
            scores += [float(score) for score in self._score(torch.where(hidden, self.baseline, self.inputs))]
            self._on_pass(len(batch))
        return scores


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise a UsageError unless the fractions ascend within 0 to 1."""
    ascend = bool(fractions) and list(fractions) == sorted(set(fractions))
    if not ascend or min(fractions) < 0 or max(fractions) > 1:
        raise UsageError(f"fractions = {tuple(fractions)} should ascend, from 0 or above to 1 or below.")


def upsample(cells: NDArray[np.float32], grid: CellGrid, size: tuple[int, int, int]) -> NDArray[np.float32]:
    """Interpolate a map on cells (T', H', W') to every pixel (T, H, W) of the network's input, as overlays do."""
    time, rows, columns = (
        grid.interpolation(axis, np.arange(length, dtype=np.float64)) for axis, length in enumerate(size)
    )
    values: NDArray[np.float32] = np.einsum("ta,yb,xc,abc->tyx", time, rows, columns, cells, optimize=True)
    return values


def rank_pixels(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rank every pixel, 0 for the greatest value; equal values in the order of time, row, column.

    Raises:
        UsageError: If all values are equal, so that the map ranks nothing.
        ValueError: If a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("a map with values that are not finite ranks no pixels.")
    if values.min() == values.max():
        raise UsageError("The map has the same value everywhere: it ranks nothing, so it cannot be checked.")
    ranks = np.empty(values.size, np.int64)
    ranks[np.argsort(-values, axis=None, kind="stable")] = np.arange(values.size)
    return ranks.reshape(values.shape)


def displaced(cells: NDArray[np.float32], draws: int, seed: int) -> list[NDArray[np.float32]]:
    """Roll the map cyclically in time, height and width by `draws` different random offsets.

    Every offset except zero is equally likely, small ones too, so a displaced map may still overlap the true one.
    """
    if not 1 <= draws < cells.size:
        raise UsageError(
            f"draws = {draws} should be 1 to {cells.size - 1}: a map of {cells.shape} cells has no more offsets."
        )
    offsets = np.random.default_rng(seed).choice(np.arange(1, cells.size), draws, replace=False)
    return [np.roll(cells, np.unravel_index(offset, cells.shape), axis=(0, 1, 2)) for offset in offsets]


def mean_over_time(cells: NDArray[np.float32], grid: CellGrid) -> tuple[NDArray[np.float32], CellGrid]:
    """Average the map over time: the same values in every frame."""
    return cells.mean(axis=0, keepdims=True), replace(grid, size=(1, *grid.size[1:]))


def centre_prior(size: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return a map (T, H, W) that decreases with the distance from the centre of the frame, equal in all frames.

    It ranks pixels as a Gaussian of any width at the centre does, and a curve depends on the ranking alone.
    """
    num_frames, height, width = size
    rows, columns = (np.arange(length) - (length - 1) / 2 for length in (height, width))
    nearness = -(rows[:, None] ** 2 + columns[None] ** 2)
    return np.broadcast_to(nearness.astype(np.float32), (num_frames, height, width))


def make_baseline(inputs: Tensor, kind: Baseline) -> Tensor:
    """Remove the content of a clip: (1, C, T, H, W) like `inputs`.

    Both kinds keep the timing: a blurred video still moves and keeps its brightness. The blur is that of RISE's
    insertion, but wider. It is computed on normalised values, which gives the same result as on pixels.
    """
    if kind == "mean_colour":
        return inputs.mean(dim=(3, 4), keepdim=True).expand_as(inputs)
    if kind == "blur":
        return blurred(inputs, BLUR_SHARE * inputs.shape[-1])
    raise UsageError(f"baseline = {kind!r} should be blur or mean_colour.")


def blurred(inputs: Tensor, sigma_pixels: float) -> Tensor:
    """Blur each frame with a Gaussian of this standard deviation; the frame is mirrored beyond its border."""
    sigma = (0, 0, 0, sigma_pixels, sigma_pixels)
    frames = ndimage.gaussian_filter(inputs.cpu().numpy(), sigma, mode="mirror")
    return torch.from_numpy(frames).to(inputs.device)


def rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Compute Spearman's rank correlation, -1 to 1, of two maps of the same shape.

    Raises:
        UsageError: If one of them has the same value everywhere.
    """
    for values in (one, other):
        if values.min() == values.max():
            raise UsageError("A map with the same value everywhere has no rank correlation.")
    return float(stats.spearmanr(one, other, axis=None).statistic)


def with_shuffled_weights(network: nn.Module, modules: Sequence[str], seed: int) -> nn.Module:
    """Return a copy of a network with the weights of the named modules shuffled within each tensor.

    Adebayo et al. draw new numbers. Shuffled ones keep the scale of each layer, so that a map does not change merely
    because the features of a deep network have become too small to tell apart.

    Args:
        network: The network; it does not change.
        modules: Dotted names. Everything below them is shuffled except the statistics of batch norms.
        seed: Random seed of the order.
    """
    changed = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in modules:
            for parameter in changed.get_submodule(name).parameters():
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return changed
