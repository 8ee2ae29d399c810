"""The best moments ranked once more after the non-local operation: each window draws on those like it.

Windows of one action draw together, and the example with them. Only the windows of the best moments take part: others
are so unlike that they would weigh next to nothing, and an archive of any size costs the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from nonlocal_video.blocks.kernels import softmax_kernel
from nonlocal_video.blocks.nonlocal_mean import softmax_scale
from nonlocal_video.retrieval.likeness import Floats

MAX_WINDOWS = 4096
"""Most windows that draw on each other: their products take a second or two."""


def refined(vectors: NDArray[np.float16] | Floats, examples: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
    """Replace unit vectors by the means of all, weighted by likeness, of length 1 again.

    Args:
        vectors: Of the archive's windows that take part, (M, C); they draw on each other.
        examples: Of the windows of each example, (n, C); each window draws on itself and on the archive's.

    Returns:
        The same, refined.
    """
    keys = torch.from_numpy(np.array(vectors, dtype=np.float32))
    scale = softmax_scale(len(keys))
    of_archive = F.normalize(softmax_kernel(keys[None], keys[None], keys[None], scale=scale)[0], dim=1)
    of_examples = []
    for rows in examples:
        means = []
        for one in torch.from_numpy(rows).split(1):
            own = torch.cat([one, keys])[None]
            means.append(softmax_kernel(one[None], own, own, scale=scale)[0])
        of_examples.append(np.asarray(F.normalize(torch.cat(means), dim=1).numpy()))
    return np.asarray(of_archive.numpy()), of_examples
