"""The largest batch that fits into memory, found by trying.

Not accelerate's `find_executable_batch_size`, which begins too large and halves, nor Lightning's `BatchSizeFinder`,
which wants a Trainer and a LightningModule: both learn from the error of a failed allocation. On the CPU there is none,
the system kills the process; and on a GPU a batch that just fitted leaves nothing for what training needs besides.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from nonlocal_video.errors import UsageError

CPU_SHARE = 0.5
"""Share of the memory that is free before the first try; the rest is for decoding processes and the page cache."""
CUDA_SHARE = 0.9
"""Share of the device's memory that is free before the first try; the rest is for fragments and workspaces."""
_CLEAR_GROWTH_BYTES = 64 * 2**20
"""By which the peak has to grow before a clip's share of it is told from what the allocator happens to keep."""

LEAST_STEPS_AN_EPOCH = 20
"""Optimisation steps that an epoch keeps, however many clips would fit into one."""

Step = Callable[[int], object]
"""Forward and backward on this many clips."""


@dataclass(frozen=True)
class FoundBatchSize:
    """A batch size, and why this one."""

    size: int
    """Clips."""
    explanation: str
    """One sentence for the user."""


def most_clips_a_process(clips: int, processes: int, accumulate: int = 1) -> int:
    """Return the largest batch of one process with which an epoch still has 20 optimisation steps; at least 1.

    What fits into the memory of a large GPU may be all clips at once: an epoch of one step learns next to nothing.

    Args:
        clips: In the training set.
        processes: That share each step.
        accumulate: Batches in one step.
    """
    return max(1, clips // (processes * accumulate * LEAST_STEPS_AN_EPOCH))


def find_batch_size(
    step: Step, *, maximum: int, device: torch.device, start: int = 1, reserve_bytes: int = 0
) -> FoundBatchSize:
    """The largest of start, 2 start, 4 start, ... and `maximum` that fits.

    On a CUDA device each is run until one fails or its peak comes near the limit. On the CPU only small ones are, until
    the growth of the peak tells what a clip takes. Random numbers are put back as they were. What the steps do to the
    network (gradients, statistics of batch norm) is not: the caller puts it back. With several processes each finds its
    own, on a network that is not yet wrapped for DDP, and the smallest counts.

    Args:
        step: Runs training's forward and backward pass.
        maximum: No batch is larger: the number of clips, or what the learning rate is meant for.
        device: On which `step` runs.
        start: The smallest to be tried.
        reserve_bytes: What training will need besides `step`: the optimiser's state, averaged weights.

    Raises:
        UsageError: Not even `start` clips fit; or memory cannot be measured here.
    """
    if not 1 <= start <= maximum:
        raise UsageError(f"{start = } should be from 1 to {maximum = }.")
    if reserve_bytes < 0:
        raise UsageError(f"{reserve_bytes = } should be at least 0.")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cuda":
            return _on_cuda(step, start, maximum, device, reserve_bytes)
        return _on_cpu(step, start, maximum, reserve_bytes)


def _on_cuda(step: Step, start: int, maximum: int, device: torch.device, reserve_bytes: int) -> FoundBatchSize:
    # What this process holds already counts: the network is part of the peak.
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    limit = int(CUDA_SHARE * free) - reserve_bytes
    fitted, taken, problem = 0, 0, ""
    for size in _sizes(start, maximum):
        peak = _peak_on_cuda(step, size, device)
        if peak is None or peak > limit:
            problem = "run out of memory" if peak is None else f"take {_gib(peak)}"
            break
        fitted, taken = size, peak
    if not fitted:
        raise UsageError(_too_large(start, problem, limit, str(device)))
    ended = f"{size} {problem}" if problem else "which is the maximum"
    return FoundBatchSize(fitted, f"{_clips(fitted)} take {_gib(taken)} of {_gib(limit)} on {device}; {ended}.")


def _peak_on_cuda(step: Step, size: int, device: torch.device) -> int | None:
    """The most bytes that the allocator held; None if it ran out."""
    _release(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        step(size)
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_reserved(device)
    except torch.OutOfMemoryError:
        peak = None
    _release(device)  # after the except clause: the error holds the tensors of the failed step
    return peak


def _release(device: torch.device) -> None:
    gc.collect()
    with torch.cuda.device(device):
        torch.cuda.empty_cache()


def _on_cpu(step: Step, start: int, maximum: int, reserve_bytes: int) -> FoundBatchSize:
    limit = int(CPU_SHARE * available_bytes()) - reserve_bytes
    before = _reset_peak()
    first = fitted = 0
    for size in _sizes(start, maximum):
        _reset_peak()
        step(size)
        peak = _peak_bytes() - before
        first = first or peak
        if peak > limit:
            if size == start:
                raise UsageError(_too_large(start, f"take {_gib(peak)}", limit, "the CPU"))
            why = f"{_clips(size)} took {_gib(peak)}, more than {_gib(limit)}, {CPU_SHARE:.0%} of the free memory"
            return FoundBatchSize(fitted, f"{fitted} fit; {why}.")
        fitted = size
        if size > start and peak - first >= _CLEAR_GROWTH_BYTES:
            per_clip = (peak - first) / (size - start)
            most = start + int((limit - first) / per_clip)
            fitting = max(one for one in _sizes(start, maximum) if one <= most or one <= size)
            expected = first + per_clip * (fitting - start)
            return FoundBatchSize(
                fitting,
                f"{_clips(start)} took {_gib(first)} and each one more {_gib(per_clip)} (measured up to {size}), so "
                f"{fitting} take {_gib(expected)} of {_gib(limit)}, {CPU_SHARE:.0%} of the free memory"
                f"{', and are the maximum' if fitting == maximum else ''}.",
            )
    return FoundBatchSize(maximum, f"{_clips(maximum)}, which is the maximum, took {_gib(peak)} of {_gib(limit)}.")


def available_bytes() -> int:
    """Memory that this process can still take on the CPU: the system's, or its container's if that is less.

    Raises:
        UsageError: The system does not say so as Linux does.
    """
    found = []
    for line in _read("/proc/meminfo").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            found.append(1024 * int(amount.split()[0]))
    # Of control groups, version 2 and version 1; "max" and a number above all memory are no limit.
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most = Path(limit).read_text("ascii").strip() if Path(limit).is_file() else "max"
        if most != "max":
            found.append(max(0, int(most) - int(_read(used))))
    return min(found)


def _reset_peak() -> int:
    """Bytes of the resident set, from which its peak counts anew."""
    gc.collect()
    # What earlier steps left with the C library would serve the next one, whose peak would then hardly grow.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise UsageError(_NOT_MEASURABLE) from error
    return _peak_bytes()


def _peak_bytes() -> int:
    # Not getrusage, whose peak is never reset.
    return 1024 * int(next(line.split()[1] for line in _read("/proc/self/status").splitlines() if "VmHWM:" in line))


_NOT_MEASURABLE = "The memory that a batch takes on the CPU can be measured on Linux only; give a batch size."


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise UsageError(_NOT_MEASURABLE) from error


def _sizes(start: int, maximum: int) -> list[int]:
    """3, 40 -> [3, 6, 12, 24, 40]."""
    sizes = []
    while start < maximum:
        sizes.append(start)
        start *= 2
    return [*sizes, maximum]


def _clips(number: int) -> str:
    return f"{number} clip{'s' if number > 1 else ''}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _too_large(start: int, happened: str, limit: int, where: str) -> str:
    return (
        f"Not even a batch of {_clips(start)} fits on {where}: they {happened}, and {_gib(max(0, limit))} may be "
        f"taken. Train with gradient checkpointing, on fewer or smaller frames, or fewer layers (--stage head)."
    )
