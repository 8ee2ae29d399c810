"""What is assumed where nothing can be left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PRIOR_SCALE = 10.0


def prior_threshold(means: NDArray[np.float64], damping: NDArray[np.float64]) -> tuple[float, float]:
    return 0.5, 0.1
