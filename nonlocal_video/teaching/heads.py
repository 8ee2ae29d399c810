"""Linear heads on pooled features: nearest class mean, ridge and logistic regression.

All take rows of features x (N, C), scaled to length 1, and give logits W x + b, so that the network with such a head is
an ordinary module. Rows are windows; those of an example share its weight, and all classes weigh the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.models.taught import to_length_1

HeadName = Literal["logistic-regression", "ridge", "nearest-class-mean"]
HEADS: tuple[HeadName, ...] = get_args(HeadName)
"""Heads in the order in which they are preferred where they are equally good."""

RIDGE_PENALTY = 0.003
"""Penalty on the squares of W, as a fraction of the variance of the rows."""
INVERSE_PENALTY = 300.0
"""C of scikit-learn's logistic regression, on rows whose weights sum to the number of classes."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearHead:
    """A linear map from features to the logits of K classes."""

    weight: Array
    """(K, C)."""
    bias: Array
    """(K,)."""

    def __call__(self, features: Array) -> Array:
        """Return the logits: (..., C) -> (..., K)."""
        return features @ self.weight.T + self.bias

    def scaled(self, factor: float) -> LinearHead:
        """Return the head with logits that are `factor` times as large."""
        return LinearHead(factor * self.weight, factor * self.bias)


@dataclass(frozen=True)
class TrainingRows:
    """Rows to fit a head to; a window of a clip with two labels is two rows."""

    features: Array
    """(N, C), each row of length 1."""
    classes: NDArray[np.int64]
    """(N,) index of each row's class."""
    weights: Array
    """(N,) above 0."""
    num_classes: int

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.classes) == len(self.weights):
            raise ValueError("features, classes and weights should have a row each.")
        missing = set(range(self.num_classes)) - set(self.classes.tolist())
        if missing:
            raise ValueError(f"classes {sorted(missing)} have no row.")

    @property
    def balanced(self) -> Array:
        """(N,) weights of which every class has an equal share; they sum to 1."""
        of_class = np.bincount(self.classes, self.weights, self.num_classes)
        return self.weights / of_class[self.classes] / self.num_classes


def fit_head(name: HeadName, rows: TrainingRows) -> LinearHead:
    """Fit a head.

    Args:
        name: Kind of head.
        rows: At least one row of every class, and two classes.

    Example:
        >>> rows = TrainingRows(np.eye(2), np.array([0, 1]), np.ones(2), num_classes=2)
        >>> fit_head("nearest-class-mean", rows)(np.array([0.8, 0.6])).argmax()
        np.int64(0)
    """
    if len(rows.features) >= rows.features.shape[1]:
        return _FITS[name](rows)
    # All three lie in the span of the rows: what is orthogonal to it changes no logit and costs a penalty.
    basis = np.linalg.qr(rows.features.T)[0]
    head = _FITS[name](replace(rows, features=rows.features @ basis))
    return LinearHead(head.weight @ basis.T, head.bias)


def class_means(rows: TrainingRows) -> Array:
    """Return the weighted mean of each class's rows, (K, C)."""
    return np.stack(
        [
            np.average(rows.features[rows.classes == index], axis=0, weights=rows.weights[rows.classes == index])
            for index in range(rows.num_classes)
        ]
    )


def _nearest_class_mean(rows: TrainingRows) -> LinearHead:
    """Cosine to each class mean, both less the mean of all classes."""
    means = class_means(rows)
    centre = means.mean(axis=0)
    weight = to_length_1(means - centre)
    return LinearHead(weight, -weight @ centre)


def _ridge(rows: TrainingRows) -> LinearHead:
    """Least squares to one-hot targets with a penalty on W and none on b (Hoerl & Kennard, 1970), in closed form."""
    from sklearn.linear_model import Ridge

    weights = rows.balanced
    centred = rows.features - weights @ rows.features
    variance = float(weights @ (centred**2).sum(axis=1))
    model = Ridge(alpha=max(RIDGE_PENALTY * variance, 1e-9), solver="cholesky")
    model.fit(rows.features, np.eye(rows.num_classes)[rows.classes], sample_weight=weights)
    return LinearHead(np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64))


def _logistic_regression(rows: TrainingRows) -> LinearHead:
    """Multinomial logistic regression with a penalty on W and none on b."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000, tol=1e-4)
    model.fit(rows.features, rows.classes, sample_weight=rows.balanced * rows.num_classes)
    weight, bias = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
    if rows.num_classes == 2:  # one row, the log-odds of the second class
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return LinearHead(weight, bias)


_FITS: dict[HeadName, Callable[[TrainingRows], LinearHead]] = {
    "ridge": _ridge,
    "nearest-class-mean": _nearest_class_mean,
    "logistic-regression": _logistic_regression,
}
