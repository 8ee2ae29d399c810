"""Check of an exported file against the network's logits, and their speed."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import interpolate

from nonlocal_video.export.formats import Run
from nonlocal_video.inference.runtimes.traceable import TOLERANCE
from nonlocal_video.models.card import InputSpec


@dataclass(frozen=True)
class Agreement:
    """Difference between the file's logits and the network's, over all checked views."""

    largest_difference: float
    """Largest absolute difference of a logit."""
    largest_logit: float
    """Largest absolute logit of the network."""
    num_views: int
    """Number of views."""

    @property
    def share(self) -> float:
        """Difference as a share of the largest logit."""
        if self.largest_difference == 0:
            return 0.0
        return self.largest_difference / self.largest_logit if self.largest_logit else math.inf

    @property
    def is_close(self) -> bool:
        """Whether the share is within the tolerance."""
        return self.share <= TOLERANCE  # False for NaN


def synthetic_clips(spec: InputSpec, count: int) -> NDArray[np.float32]:
    """Return synthetic clips (count, 3, T, S, S), normalised as the network takes them and the same in every call.

    The first is noise over all colours. The others are drifting blobs of colour with some grain, smooth in space and
    time as real video is. Both are normalised with the card's mean and std, so they cover the range of real clips.
    """
    generator = torch.Generator().manual_seed(0)
    size = (spec.num_frames, spec.crop, spec.crop)
    grain = torch.rand(count, 3, *size, generator=generator)
    blots = interpolate(torch.rand(count, 3, 4, 6, 6, generator=generator), size=size, mode="trilinear")
    clips = 0.8 * blots + 0.2 * grain
    clips[0] = grain[0]
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (spec.mean, spec.std))
    normalised: NDArray[np.float32] = ((clips - mean) / std).numpy()
    return normalised


def eager(network: nn.Module) -> Run:
    """Wrap the network itself as if it were a file's runtime."""

    def run(clips: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = network(torch.from_numpy(clips)).numpy()
        return logits

    return run


def compare(expected: NDArray[np.float32], found: NDArray[np.float32]) -> Agreement:
    """Compare the logits (V, classes) of the network and of the file.

    Raises:
        ValueError: If the shapes differ.
    """
    if expected.shape != found.shape:
        raise ValueError(f"The file gives logits of shape {found.shape} instead of {expected.shape}.")
    return Agreement(float(np.abs(found - expected).max()), float(np.abs(expected).max()), len(expected))


def seconds_per_view(first: Run, second: Run, clips: NDArray[np.float32], *, turns: int) -> tuple[float, float]:
    """Measure the seconds of each per view of the batch `clips`: medians of alternating runs. Warm both up before."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for run, taken in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            run(clips)
            taken.append((time.perf_counter() - started) / len(clips))
    return statistics.median(seconds[0]), statistics.median(seconds[1])
