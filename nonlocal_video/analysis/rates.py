"""Speed and memory of a machine: measured for one network, then used to predict the cost of its other settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from nonlocal_video.analysis.counting import count_run
from nonlocal_video.analysis.speed import measure_speed
from nonlocal_video.errors import ModelError

Size = tuple[int, int, int]
"""Size (T, H, W) of a clip."""


@dataclass(frozen=True)
class Measurement:
    """Measured cost of a network at one input size."""

    input_size: Size
    """Size (T, H, W) of the input."""
    macs: int
    """Counted multiply-accumulates."""
    seconds: float
    """Median time of a forward pass."""
    counted_bytes: int
    """Counted peak size of the live tensors, without the input."""
    peak_bytes: int
    """Measured peak memory, without weights and input."""


@dataclass(frozen=True)
class Rates:
    """Conversion of counted operations and bytes to time and memory, from measurements at two input sizes.

    Time is the line through both, or proportional to the larger one if that line would start below zero. Memory exceeds
    the counted tensors by the operators' scratch space and copies, which follow no single law (small inputs can take
    more than large ones): between the measurements it is interpolated, below them it is constant, above them it grows
    in proportion.
    """

    smaller: Measurement
    """Measurement at the smaller input."""
    larger: Measurement
    """Measurement at the larger input."""
    device: str
    """Device that was measured."""
    num_threads: int
    """Number of CPU threads."""

    def __post_init__(self) -> None:
        if not (self.smaller.macs < self.larger.macs and self.smaller.counted_bytes < self.larger.counted_bytes):
            raise ValueError(f"{self.smaller} should cost less than {self.larger}.")

    def seconds(self, macs: int) -> float:
        """Predict the seconds of a forward pass."""
        small, large = self.smaller, self.larger
        slope = (large.seconds - small.seconds) / (large.macs - small.macs)
        start = large.seconds - slope * large.macs
        if start < 0 or slope <= 0:
            return large.seconds * macs / large.macs
        return start + slope * macs

    def peak_bytes(self, counted_bytes: int) -> float:
        """Predict the peak memory of a forward pass, without weights and input."""
        small, large = self.smaller, self.larger
        if counted_bytes >= large.counted_bytes:
            return large.peak_bytes * counted_bytes / large.counted_bytes
        position = (counted_bytes - small.counted_bytes) / (large.counted_bytes - small.counted_bytes)
        return small.peak_bytes + max(0.0, position) * (large.peak_bytes - small.peak_bytes)


def measure_rates(
    network: nn.Module,
    input_size: Size,
    *,
    device: str | torch.device = "cpu",
    num_runs: int = 5,
    smaller: Size | None = None,
) -> Rates:
    """Measure a network's time and memory at two input sizes.

    Args:
        network: A module that takes (1, 3, T, H, W).
        input_size: The larger size (T, H, W). It has to run on this machine; predictions may be for larger ones.
        device: Device to measure.
        num_runs: Number of timed runs at each size.
        smaller: The other size; None halves height and width.

    Raises:
        ModelError: If the memory cannot be measured on this device.
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
        measured.append(Measurement(size, count.macs, speed.median_seconds, counted, speed.peak_bytes))
    smaller_one, larger_one = measured
    return Rates(smaller_one, larger_one, device=speed.device, num_threads=speed.num_threads)


def input_bytes(size: Size) -> int:
    """Return the bytes of one RGB clip in float32."""
    return 4 * 3 * math.prod(size)
