"""Search for the largest batch size that fits into memory.

This does not use accelerate's `find_executable_batch_size`, which starts too large and halves, nor Lightning's
`BatchSizeFinder`, which needs a Trainer and a LightningModule. Both rely on the error of a failed allocation. On a CPU
there is no such error, as the system kills the process; and on a GPU a batch that barely fits leaves no memory for the
other needs of training.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.device_errors import failure_of

CPU_SHARE = 0.5
"""Share of the free memory to use; the rest is for decoding processes and the page cache."""
CUDA_SHARE = 0.9
"""Share of the device's free memory to use; the rest is for fragmentation and workspaces."""
_MIN_GROWTH_BYTES = 64 * 2**20
"""Growth of the peak from which the memory per clip can be estimated, despite what the allocator retains."""

MIN_STEPS_PER_EPOCH = 20
"""Minimum number of optimisation steps per epoch, even if more clips fit into memory."""

Step = Callable[[int], object]
"""Function that runs forward and backward on a given number of clips."""


@dataclass(frozen=True)
class FoundBatchSize:
    """A batch size and its explanation."""

    size: int
    """Clips per batch."""
    explanation: str
    """Explanation for the user, one sentence."""


def max_batch_size_per_process(clips: int, processes: int, accumulate: int = 1) -> int:
    """Return the largest batch size of one process that leaves an epoch 20 optimisation steps; at least 1.

    A large GPU may fit all clips at once, but an epoch of a single step trains next to nothing.

    Args:
        clips: Number of training clips.
        processes: Number of processes that share each step.
        accumulate: Batches per optimisation step.
    """
    return max(1, clips // (processes * accumulate * MIN_STEPS_PER_EPOCH))


def find_batch_size(
    step: Step, *, maximum: int, device: torch.device, start: int = 1, reserve_bytes: int = 0
) -> FoundBatchSize:
    """Return the largest of start, 2 start, 4 start, ... and `maximum` that fits into memory.

    On a CUDA device, sizes are tried until one fails or its peak comes near the limit. On a CPU, only small sizes are
    run, until the growth of the peak gives the memory per clip. The state of random generators is restored; changes to
    the network by `step` (gradients, batch-norm statistics) are not. With several processes, each searches on a network
    that is not yet wrapped for DDP, and the caller takes the smallest result.

    Args:
        step: Runs a forward and a backward pass on a given number of clips.
        maximum: Largest size to consider.
        device: Device on which `step` runs.
        start: Smallest size to try.
        reserve_bytes: Memory that training needs in addition: optimizer state, averaged weights.

    Raises:
        UsageError: Not even `start` clips fit; or memory cannot be measured on this system.
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
    # Memory that this process already holds is included: the network is part of the peak.
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
    """Return the peak of the bytes that the allocator reserved; None if it ran out of memory."""
    _release(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        step(size)
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_reserved(device)
    except (RuntimeError, MemoryError) as error:
        if failure_of(error) != "out_of_memory":
            raise
        peak = None
    _release(device)  # after the except clause: the exception holds the tensors of the failed step
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
        if size > start and peak - first >= _MIN_GROWTH_BYTES:
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
    """Return the free memory of the system, or of this container if less, in bytes.

    Raises:
        UsageError: The system is not Linux.
    """
    found = []
    for line in _read("/proc/meminfo").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            found.append(1024 * int(amount.split()[0]))
    # Control groups, versions 2 and 1; "max" or a number above all memory means no limit.
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most = Path(limit).read_text("ascii").strip() if Path(limit).is_file() else "max"
        if most != "max":
            found.append(max(0, int(most) - int(_read(used))))
    return min(found)


def _reset_peak() -> int:
    """Reset the peak of the resident set size; return its current size in bytes."""
    gc.collect()
    # Memory that the C library retains from earlier steps would serve the next one and hide its peak.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise UsageError(_NOT_MEASURABLE) from error
    return _peak_bytes()


def _peak_bytes() -> int:
    # Not getrusage, whose peak cannot be reset.
    return 1024 * int(next(line.split()[1] for line in _read("/proc/self/status").splitlines() if "VmHWM:" in line))


_NOT_MEASURABLE = "The memory of a batch on the CPU can be measured on Linux only; give a batch size."


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise UsageError(_NOT_MEASURABLE) from error


def _sizes(start: int, maximum: int) -> list[int]:
    """Return the sizes to try: 3, 40 -> [3, 6, 12, 24, 40]."""
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
        f"Not even a batch of {_clips(start)} fits on {where}: they {happened}, and {_gib(max(0, limit))} are "
        f"available. Train with gradient checkpointing, on fewer or smaller frames, or fewer layers (--stage head)."
    )
