"""Memory that the server can still take: of the machine, of its container, and of its own limit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

SPARE_BYTES = 256 * 1024**2
"""Memory below which no further clip is accepted, so that the work in progress can be finished."""
_GROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def bytes_left(*, proc: Path = _PROC, group: Path = _GROUP) -> int | None:
    """Return the memory in bytes that is left until the nearest limit; None where the system does not say.

    Of a container (control groups, version 2), files that the kernel could drop count as left.

    Args:
        proc: Folder of the kernel's figures of processes.
        group: Folder of the container's figures.
    """
    found = []
    with suppress(OSError, ValueError, KeyError):
        found.append(1024 * _numbers(proc / "meminfo", ":")["MemAvailable"])
    with suppress(OSError, ValueError, KeyError):  # without a limit the file says "max"
        most = int((group / "memory.max").read_text("ascii"))
        used = int((group / "memory.current").read_text("ascii"))
        found.append(most - used + _numbers(group / "memory.stat", " ")["inactive_file"])
    with suppress(OSError, ValueError, KeyError):  # "unlimited" is no number
        limits = (proc / "self" / "limits").read_text("ascii").splitlines()
        limit = next(int(line.split()[3]) for line in limits if line.startswith("Max address space"))
        found.append(limit - 1024 * _numbers(proc / "self" / "status", ":")["VmSize"])
    return min(found, default=None)


def is_short() -> bool:
    """Return whether less than `SPARE_BYTES` are left."""
    left = bytes_left()
    return left is not None and left < SPARE_BYTES


def _numbers(path: Path, separator: str) -> dict[str, int]:
    """Return the first number of each line by its name."""
    numbers = {}
    for line in path.read_text("ascii", "replace").splitlines():
        name, _, value = line.partition(separator)
        with suppress(ValueError, IndexError):
            numbers[name] = int(value.split()[0])
    return numbers
