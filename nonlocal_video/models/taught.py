"""Taught classes: what a model that was taught by examples knows of them beside its head."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAD_COUNTS = 0.25
"""Weight of the nearest class's lead over the second in a clip's likeness."""
MEAN_COUNTS_FROM = 8
"""Number of clips of which half of their mean is subtracted, as in `blocks.nonlocal_mean`."""

_LITTLE_ENDIAN = np.dtype("<f4")
Array = NDArray[np.float64]


class Likeness(NamedTuple):
    """Return the likeness of each of N clips to its nearest class."""

    value: Array
    """(N,) cosine to the nearest class mean plus `LEAD_COUNTS` times its lead over the second; -1 where a clip of
    `none of these` is nearer."""
    nearest: NDArray[np.int64]
    """(N,) index of the nearest class."""
    least: float
    """Value below which a clip is unknown."""

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """(N,) whether each clip is unknown."""
        return self.value < self.least


@dataclass(frozen=True, repr=False)
class TaughtClasses:
    """Means of the examples of each class, and how like them a clip has to be; part of a model's card.

    Likeness is a cosine of the square roots of features, as in `search`. Two sets of directions are damped first, each
    as x - x A^T A with the R rows of A, and the result is scaled to length 1: those that the former head looked at
    most, and then the ones in which examples of one class differ most.

    Raises:
        ValueError: If a number is not finite, or the arrays do not fit each other.
    """

    num_features: int
    """Number of features C."""
    rooted_means: str
    """(K, C) float32 in base64: mean over the examples of each class of the roots, after the first damping."""
    none_examples: str
    """(M, C) likewise: the examples of `none of these`; M may be 0."""
    former_head: str
    """(R, C) likewise: A of the first damping; R may be 0."""
    within_classes: str
    """(R, C) likewise: A of the second; R may be 0."""
    threshold: float
    """Likeness below which a clip by itself is unknown."""
    folder_threshold: float
    """Likeness below which a clip in the context of a folder is unknown; each side's mean is subtracted first."""

    def __post_init__(self) -> None:
        if self.num_features < 1:
            raise ValueError(f"num_features = {self.num_features} should be at least 1.")
        if not all(np.isfinite(rows).all() for rows in (self.means, self._nones, *self._dampings)):
            raise ValueError("The means of the taught classes should be finite.")
        if len(self.means) < 2:
            raise ValueError(f"There should be two or more taught classes, not {len(self.means)}.")
        if not (math.isfinite(self.threshold) and math.isfinite(self.folder_threshold)):
            raise ValueError("The thresholds of the taught classes should be finite.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.means)} classes, threshold={self.threshold:.3f})"

    @property
    def means(self) -> Array:
        """Class means, (K, C)."""
        return _decoded(self.rooted_means, self.num_features)

    @property
    def _nones(self) -> Array:
        return _decoded(self.none_examples, self.num_features)

    @property
    def _dampings(self) -> tuple[Array, Array]:
        return _decoded(self.former_head, self.num_features), _decoded(self.within_classes, self.num_features)

    def likeness(self, features: NDArray[np.floating], *, folder: bool = False) -> Likeness:
        """Return how like the taught classes clips are.

        Args:
            features: (N, C) pooled features of the layer before the classifier.
            folder: Whether the clips are one folder, whose mean is subtracted from them, and the classes' mean from the
                classes.
        """
        share = mean_share(len(features)) if folder else 0.0
        first, second = self._dampings
        rows = damped(rooted(features), first)
        centre = share * self.means.mean(axis=0)
        return likeness(
            rows - share * rows.mean(axis=0),
            self.means - centre,
            self._nones - centre,
            second,
            least=share * self.folder_threshold + (1 - share) * self.threshold,
        )


def likeness(rows: Array, means: Array, nones: Array, damping: Array, *, least: float = 0.0) -> Likeness:
    """Return the likeness of clips to class means; see `TaughtClasses`.

    Args:
        rows: (N, C).
        means: (K, C), K of 2 or more.
        nones: (M, C).
        damping: (R, C).
        least: As in `Likeness`.
    """
    clips = damped(rows, damping)
    cosines = clips @ damped(means, damping).T
    ranked = np.sort(cosines, axis=1)
    value = ranked[:, -1] + LEAD_COUNTS * (ranked[:, -1] - ranked[:, -2])
    if len(nones):
        value[(clips @ damped(nones, damping).T).max(axis=1) > ranked[:, -1]] = -1.0
    return Likeness(value, cosines.argmax(axis=1), least)


def mean_share(num_clips: int) -> float:
    """Return the share of its mean that is subtracted from a folder of so many clips.

    The mean of a few clips is mostly that of their actions, and of one clip is that clip.
    """
    return num_clips / (num_clips + MEAN_COUNTS_FROM)


def to_length_1(rows: Array) -> Array:
    """Scale rows to length 1: (..., C) -> (..., C). A row of zeros stays one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def rooted(features: NDArray[np.floating]) -> Array:
    """Return the square roots of features, with their signs: few large features then decide less.

    `retrieval.likeness` has it for archives, by PyTorch, which a card does without.
    """
    values = np.asarray(features, np.float64)
    return np.copysign(np.sqrt(np.abs(values)), values)


def encoded(rows: Array) -> str:
    """Return rows of numbers as base64 of little-endian float32."""
    return base64.b64encode(np.asarray(rows, _LITTLE_ENDIAN).tobytes()).decode()


def damped(rows: Array, damping: Array) -> Array:
    """Return rows x (N, C) as x - x A^T A, of length 1, for the damping A (R, C)."""
    return to_length_1(rows - (rows @ damping.T) @ damping)


def _decoded(text: str, num_features: int) -> Array:
    """Return the rows of `encoded`.

    Raises:
        ValueError: The text is no base64, or holds no whole rows.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), _LITTLE_ENDIAN).reshape(-1, num_features).astype(float)
