"""Whether a map is faithful: what becomes of a class's score when the places it ranks first are taken away.

Deletion and insertion curves are those of Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of
Black-box Models" (BMVC 2018), here over the space-time places of a clip: every pixel of every frame that the network
was given is one. The test by random weights is that of Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS
2018).

A curve by itself says little: any shape of that size costs some score. Hence the controls: the same map displaced, the
same map without its time, and the centre of the picture, where most films have their subject.
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
"""Clips (B, 3, T, H, W) as the network is given them -> the probability of one class in each, B numbers."""
Baseline = Literal["blur", "mean_colour"]
"""What a place shows when it is taken away: the blurred frame, or the frame's mean colour."""

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0)
BLUR_SHARE = 1 / 16
"""Standard deviation of the blur as a share of the input's side: 14 pixels of 224."""


@dataclass(frozen=True)
class Curve:
    """A class's probability by how much of the clip was deleted, or inserted."""

    fractions: tuple[float, ...]
    """Shares of all places, 0 to 1, ascending."""
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        check_fractions(self.fractions)
        if len(self.scores) != len(self.fractions):
            raise ValueError(f"{len(self.scores) = } should be {len(self.fractions) = }.")

    @property
    def area(self) -> float:
        """Area below the curve by the trapezoid rule, 0 to 1.

        Raises:
            ValueError: The curve does not go from 0 to 1.
        """
        if (self.fractions[0], self.fractions[-1]) != (0, 1):
            raise ValueError(f"{self.fractions = } should begin with 0 and end with 1; other areas do not compare.")
        return float(integrate.trapezoid(self.scores, self.fractions))


@dataclass(frozen=True)
class Curves:
    """Both curves of one ranking of the places."""

    deletion: Curve
    """The strongest places go first: the smaller its area, the better the ranking."""
    insertion: Curve
    """The strongest places come back first: the greater its area, the better."""


class Perturbation:
    """One clip whose places are taken away or put back while a score is watched.

    Args:
        score: The network, one class of it; in inference mode, else the curves are noise.
        inputs: (1, 3, T, H, W) as the network is given it.
        baseline: The same clip with nothing in it, the same shape; see `make_baseline`.
        batch_size: Clips that `score` is given at a time.
        on_pass: Called with the number of clips after each call of `score`.
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
        """Score of the unchanged clip: where deletion begins and insertion ends."""
        return self._scores([np.zeros(self.size, bool)])[0]

    @cached_property
    def baseline_score(self) -> float:
        """With everything taken away: where deletion ends and insertion begins."""
        return self._scores([np.ones(self.size, bool)])[0]

    @property
    def size(self) -> tuple[int, int, int]:
        """(T, H, W) of the input."""
        num_frames, height, width = self.inputs.shape[2:]
        return num_frames, height, width

    def curves(self, values: NDArray[np.float32], fractions: Sequence[float] = FRACTIONS) -> Curves:
        """Deletion and insertion by the ranking of a map.

        Args:
            values: (T, H, W), see `on_input`.
            fractions: Shares of the places, ascending. 0 and 1 cost no forward pass beyond the clip's first two.
        """
        check_fractions(fractions)
        ranks = rank_places(values)
        inner = [fraction for fraction in fractions if 0 < fraction < 1]
        first = [self._first(ranks, fraction) for fraction in inner]
        without, only = self._scores(first), self._scores(~places for places in first)
        deletion = {0.0: self.own_score, 1.0: self.baseline_score, **dict(zip(inner, without, strict=True))}
        insertion = {0.0: self.baseline_score, 1.0: self.own_score, **dict(zip(inner, only, strict=True))}
        return Curves(
            deletion=Curve(tuple(fractions), tuple(deletion[fraction] for fraction in fractions)),
            insertion=Curve(tuple(fractions), tuple(insertion[fraction] for fraction in fractions)),
        )

    def scores_without(self, maps: Iterable[NDArray[np.float32]], fraction: float) -> list[float]:
        """The score without the strongest `fraction` of the places, for each of several maps (T, H, W)."""
        check_fractions([fraction])
        return self._scores(self._first(rank_places(values), fraction) for values in maps)

    def _first(self, ranks: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
        """(T, H, W): the places that are ranked first."""
        if ranks.shape != self.size:
            raise ValueError(f"a map of {ranks.shape} should have a value for each of the input's {self.size} places.")
        first: NDArray[np.bool_] = ranks < round(fraction * ranks.size)
        return first

    def _scores(self, taken_away: Iterable[NDArray[np.bool_]]) -> list[float]:
        """The score of the clip without the given places, (T, H, W) each."""
        masks = iter(taken_away)
        scores: list[float] = []
        while batch := list(itertools.islice(masks, self._batch_size)):
            hidden = torch.from_numpy(np.stack(batch))[:, None].to(self.inputs.device)  # (B, 1, T, H, W)
            scores += [float(score) for score in self._score(torch.where(hidden, self.baseline, self.inputs))]
            self._on_pass(len(batch))
        return scores


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises UsageError unless they ascend from 0 or above to 1 or below."""
    ascend = bool(fractions) and list(fractions) == sorted(set(fractions))
    if not ascend or min(fractions) < 0 or max(fractions) > 1:
        raise UsageError(f"fractions = {tuple(fractions)} should ascend, from 0 or above to 1 or below.")


def on_input(cells: NDArray[np.float32], grid: CellGrid, size: tuple[int, int, int]) -> NDArray[np.float32]:
    """A map on cells (T', H', W') -> its value at every place (T, H, W) of the network's input, as overlays draw it."""
    time, rows, columns = (
        grid.interpolation(axis, np.arange(length, dtype=np.float64)) for axis, length in enumerate(size)
    )
    values: NDArray[np.float32] = np.einsum("ta,yb,xc,abc->tyx", time, rows, columns, cells, optimize=True)
    return values


def rank_places(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rank of every place, 0 for the greatest value; equal values in the order of time, row, column.

    Raises:
        UsageError: All values are equal, so that the map ranks nothing.
        ValueError: A value is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("a map with values that are not finite ranks no places.")
    if values.min() == values.max():
        raise UsageError("The map has the same value everywhere: it ranks no places, so it cannot be checked.")
    ranks = np.empty(values.size, np.int64)
    ranks[np.argsort(-values, axis=None, kind="stable")] = np.arange(values.size)
    return ranks.reshape(values.shape)


def displaced(cells: NDArray[np.float32], draws: int, seed: int) -> list[NDArray[np.float32]]:
    """The same map elsewhere: rolled cyclically in time, height and width by random offsets, `draws` different ones.

    Every offset but none is equally likely, small ones too, so a displaced map may still overlap the true one.
    """
    if not 1 <= draws < cells.size:
        raise UsageError(
            f"draws = {draws} should be 1 to {cells.size - 1}: a map of {cells.shape} cells has no more places to go."
        )
    offsets = np.random.default_rng(seed).choice(np.arange(1, cells.size), draws, replace=False)
    return [np.roll(cells, np.unravel_index(offset, cells.shape), axis=(0, 1, 2)) for offset in offsets]


def over_time(cells: NDArray[np.float32], grid: CellGrid) -> tuple[NDArray[np.float32], CellGrid]:
    """The map averaged over time, the same in every frame."""
    return cells.mean(axis=0, keepdims=True), replace(grid, size=(1, *grid.size[1:]))


def centre_prior(size: tuple[int, int, int]) -> NDArray[np.float32]:
    """(T, H, W): the nearer to the middle of the frame the greater, in all frames alike.

    It ranks places as a Gaussian of any width at the middle does, which is all that a curve sees of a map.
    """
    num_frames, height, width = size
    rows, columns = (np.arange(length) - (length - 1) / 2 for length in (height, width))
    nearness = -(rows[:, None] ** 2 + columns[None] ** 2)
    return np.broadcast_to(nearness.astype(np.float32), (num_frames, height, width))


def make_baseline(inputs: Tensor, kind: Baseline) -> Tensor:
    """The clip without its content, (1, C, T, H, W) like `inputs`.

    Neither changes anything in time: a blurred film still moves, and keeps its light. The blur is that of RISE's
    insertion, and wider; it is computed on normalised values, which gives the same as on the pixels.
    """
    if kind == "mean_colour":
        return inputs.mean(dim=(3, 4), keepdim=True).expand_as(inputs)
    if kind == "blur":
        return blurred(inputs, BLUR_SHARE * inputs.shape[-1])
    raise UsageError(f"baseline = {kind!r} should be blur or mean_colour.")


def blurred(inputs: Tensor, sigma_pixels: float) -> Tensor:
    """Each frame under a Gaussian of this standard deviation; beyond the border the frame is mirrored."""
    sigma = (0, 0, 0, sigma_pixels, sigma_pixels)
    frames = ndimage.gaussian_filter(inputs.cpu().numpy(), sigma, mode="mirror")
    return torch.from_numpy(frames).to(inputs.device)


def rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Spearman's, -1 to 1, between two maps of the same shape.

    Raises:
        UsageError: One of them has the same value everywhere.
    """
    for values in (one, other):
        if values.min() == values.max():
            raise UsageError("A map with the same value everywhere has no rank correlation.")
    return float(stats.spearmanr(one, other, axis=None).statistic)


def with_shuffled_weights(network: nn.Module, modules: Sequence[str], seed: int) -> nn.Module:
    """A copy that has unlearnt what the named modules know: each weight tensor's own numbers in random order.

    Adebayo et al. draw new numbers. Shuffled ones keep each layer's scale, so that a map does not change merely
    because the features in a deep network have become too small to tell apart.

    Args:
        network: Is left as it is.
        modules: Dotted names; everything below them is shuffled, the statistics of batch norms are kept.
        seed: Of the order.
    """
    changed = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in modules:
            for parameter in changed.get_submodule(name).parameters():
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return changed
