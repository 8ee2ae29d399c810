"""Causes of a decoding process's end, by its exit status, its last output and the kernel's counters."""

from __future__ import annotations

import dataclasses
import os
import signal
from typing import Literal

Cause = Literal["timeout", "out_of_memory", "decoder_crashed"]

_NO_MEMORY_WORDS = (b"bad_alloc", b"MemoryError", b"annot allocate memory")
# Values of Popen for a process that a signal ended; Windows knows few of them.
_TIMERS = {getattr(signal, name) for name in ("SIGALRM", "SIGXCPU") if hasattr(signal, name)}
# Faults of the process itself. Any other signal comes from outside.
_FAULTS = {
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP", "SIGXFSZ", "SIGPIPE")
    if hasattr(signal, name)
}
_VMSTAT = "/proc/vmstat"


@dataclasses.dataclass(frozen=True)
class Ending:
    """The end of a decoding process."""

    cause: Cause
    """Error code of the cause."""
    killed_by: str | None = None
    """Name of the signal, if it came from outside the process."""


class DecoderEndedError(Exception):
    """The decoding process ended before its work was done."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


def kernel_kills() -> int | None:
    """Return the number of processes that the kernel has killed for memory since boot; None if it does not report it.

    Linux counts kills for the memory of the whole machine and of a container (cgroup) together.
    """
    try:
        with open(_VMSTAT, "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def classify_ending(
    returncode: int | None, printed: bytes, *, timed_out: bool, killed_by_us: bool, kills_before: int | None
) -> Ending:
    """Classify how a process ended.

    Args:
        returncode: Result of `Popen`: minus the signal's number, if a signal ended it.
        printed: The end of the process's output.
        timed_out: Whether the parent killed it because its time was over.
        killed_by_us: Whether the signal, if any, came from the parent.
        kills_before: Result of `kernel_kills()` when it started its work.
    """
    number = -returncode if os.name == "posix" and returncode is not None and returncode < 0 else None
    if timed_out or number in _TIMERS:
        return Ending("timeout")
    if any(words in printed for words in _NO_MEMORY_WORDS):
        return Ending("out_of_memory")
    if number is None or number in _FAULTS or killed_by_us:
        return Ending("decoder_crashed")
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    kills = kernel_kills()
    if number == signal.SIGKILL and None not in (kills, kills_before) and kills != kills_before:
        return Ending("out_of_memory", name)  # the kernel has just killed for memory
    return Ending("decoder_crashed", name)
