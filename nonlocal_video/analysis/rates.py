"""What a machine makes of counted operations and bytes: measured for one network, used to predict its settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from nonlocal_video.analysis.counting import count_run
from nonlocal_video.analysis.speed import measure_speed
from nonlocal_video.errors import ModelError

Size = tuple[int, int, int]
"""(T, H, W) of a clip."""


@dataclass(frozen=True)
class Measured:
    """What a network cost at one input size."""

    input_size: Size
    macs: int
    seconds: float
    counted_bytes: int
    """Peak of the counted tensors, without the input."""
    peak_bytes: int
    """Peak of the memory that was really taken, without weights and input."""


@dataclass(frozen=True)
class Rates:
    """What this machine makes of counted operations and bytes, from measurements at a smaller and a larger input.

    Time is the line through both, or the larger one's proportion where that line would start below zero. Memory is
    more than the counted tensors by the operators' scratch space and copies, which do not follow one law (small inputs
    can take more than large ones): between the measurements it is interpolated, below them it stays, above them it
    grows in proportion.
    """

    smaller: Measured
    larger: Measured
    device: str
    num_threads: int

    def __post_init__(self) -> None:
        if not (self.smaller.macs < self.larger.macs and self.smaller.counted_bytes < self.larger.counted_bytes):
            raise ValueError(f"{self.smaller} should cost less than {self.larger}.")

    def seconds(self, macs: int) -> float:
        """Predicted seconds of a pass."""
        small, large = self.smaller, self.larger
        slope = (large.seconds - small.seconds) / (large.macs - small.macs)
        start = large.seconds - slope * large.macs
        if start < 0 or slope <= 0:
            return large.seconds * macs / large.macs
        return start + slope * macs

    def peak_bytes(self, counted_bytes: int) -> float:
        """Predicted peak memory of a pass, beyond weights and input."""
        small, large = self.smaller, self.larger
        if counted_bytes >= large.counted_bytes:
            return large.peak_bytes * counted_bytes / large.counted_bytes
        place = (counted_bytes - small.counted_bytes) / (large.counted_bytes - small.counted_bytes)
        return small.peak_bytes + max(0.0, place) * (large.peak_bytes - small.peak_bytes)


def measure_rates(
    network: nn.Module,
    input_size: Size,
    *,
    device: str | torch.device = "cpu",
    num_runs: int = 5,
    smaller: Size | None = None,
) -> Rates:
    """Measures a network's time and memory at two input sizes.

    Args:
        network: Takes (1, 3, T, H, W).
        input_size: The larger (T, H, W). It has to run on this machine; what is predicted may be larger still.
        device: Where to measure.
        num_runs: Timed runs at each size.
        smaller: The other size; None halves height and width.
    """
    smaller = smaller or (input_size[0], max(1, input_size[1] // 2), max(1, input_size[2] // 2))
    measured = []
    for size in (smaller, input_size):
        shape = (1, 3, *size)
        count = count_run(network, shape)
        (speed,) = measure_speed({"network": network}, shape, device=device, num_runs=num_runs)
        if speed.peak_bytes is None:
            raise ModelError(f"The memory of a pass of {size} could not be measured: {speed.peak_method}.")
        counted = count.peak_bytes - input_bytes(size)
        measured.append(Measured(size, count.macs, speed.median_seconds, counted, speed.peak_bytes))
    smaller_one, larger_one = measured
    return Rates(smaller_one, larger_one, device=speed.device, num_threads=speed.num_threads)


def input_bytes(size: Size) -> int:
    """Bytes of one RGB clip in float32."""
    return 4 * 3 * math.prod(size)
