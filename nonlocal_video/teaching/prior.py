"""Assumptions where there is one example a class, so that nothing can be left out."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.models.taught import damped, likeness, rooted
from nonlocal_video.teaching.heads import HeadName, TrainingRows, class_means

PRIOR_SCALES: dict[HeadName, float] = {"logistic-regression": 3.0, "ridge": 10.0, "nearest-class-mean": 10.0}
"""Factors of logits that a few examples of each class are found to ask for."""
PRIOR_FOLDER_THRESHOLD = 0.1
"""Likeness less each side's mean, where unrelated clips have about 0."""
_ACCEPTED_BACKGROUND = 0.05
"""Share of background windows that may be taken for a class."""
_FILE = "background.safetensors"
Array = NDArray[np.float64]


@lru_cache
def background_features() -> Array:
    """Return features of windows of unrelated videos, (B, C), computed by the default model."""
    from safetensors.numpy import load_file

    path = str(files("nonlocal_video.weights") / _FILE)
    return np.asarray(load_file(path)["features"], np.float64)


def prior_thresholds(rows: TrainingRows, former_head: Array, background: Array | None) -> tuple[float, float]:
    """Return the likeness of a clip by itself, and in a folder, below which it is unknown.

    A clip should be more like its class than 95% of background windows are like any, and more than examples of
    different classes are like each other, at their median.

    Args:
        rows: Of all examples, for likeness.
        former_head: (R, C) first damping.
        background: (B, C) features as the network gives them, or None if this network has none.
    """
    means = class_means(rows)
    cosines = (damped(means, means[:0]) @ damped(means, means[:0]).T)[np.triu_indices(len(means), 1)]
    found = float(np.median(cosines))
    if background is not None:
        values = likeness(damped(rooted(background), former_head), means, means[:0], means[:0]).value
        found = max(found, float(np.quantile(values, 1.0 - _ACCEPTED_BACKGROUND)))
    return found, PRIOR_FOLDER_THRESHOLD
