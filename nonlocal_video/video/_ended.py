"""Why a decoding process ended: what its exit status, its last words and the kernel's counters say."""

from __future__ import annotations

import dataclasses
import os
import signal
from typing import Literal

Cause = Literal["timeout", "out_of_memory", "decoder_crashed"]

_NO_MEMORY_WORDS = (b"bad_alloc", b"MemoryError", b"annot allocate memory")
# What Popen gives for a process that a signal ended; Windows knows few of these.
_TIMERS = {getattr(signal, name) for name in ("SIGALRM", "SIGXCPU") if hasattr(signal, name)}
# Faults that the process itself commits. Any other signal comes from outside.
_FAULTS = {
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP", "SIGXFSZ", "SIGPIPE")
    if hasattr(signal, name)
}
_VMSTAT = "/proc/vmstat"


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a decoding process ended."""

    cause: Cause
    killed_by: str | None = None
    """The signal's name, if somebody or something outside of the process sent it."""


class DecoderEndedError(Exception):
    """The decoding process ended before its work was done."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


def kernel_kills() -> int | None:
    """Return how many processes the kernel has killed for memory since it started; None where it does not say.

    Linux counts kills for the whole machine's memory and for a container's (cgroup's) in the same number.
    """
    try:
        with open(_VMSTAT, "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def ending_of(
    returncode: int | None, printed: bytes, *, timed_out: bool, killed_by_us: bool, kills_before: int | None
) -> Ending:
    """Tell how a process ended.

    Args:
        returncode: What `Popen` gives: minus the signal's number, if one ended it.
        printed: The end of what it printed.
        timed_out: Whether we killed it because its time was over.
        killed_by_us: Whether the signal, if any, was ours.
        kills_before: `kernel_kills()` when it started its work.
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
