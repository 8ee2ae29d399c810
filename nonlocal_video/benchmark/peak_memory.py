"""Peak memory of one run of a case beyond its inputs, from the resident set of a separate process."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nonlocal_video.benchmark.ops_cases import Implementation, OpCase, build
from nonlocal_video.errors import NonlocalVideoError

_WARM_UP_POSITIONS = 1152
# Blocks of 64 KiB and more are returned to the system when they are freed. Otherwise the run could reuse memory of the
# warm-up and appear to take none.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Peak:
    """One run in a fresh process."""

    bytes: int
    """Peak of the resident set during the run, less the resident set before it, with inputs and weights."""
    seconds: float
    """Time of the run."""


def measure_peak(case: OpCase, implementation: Implementation, *, threads: int) -> Peak:
    """Run a case once in a fresh process.

    Raises:
        NonlocalVideoError: If the process fails.
    """
    request = json.dumps({"case": asdict(case), "implementation": implementation, "threads": threads})
    command = [sys.executable, "-m", "nonlocal_video.benchmark.peak_memory", request]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | _ENVIRONMENT)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise NonlocalVideoError(f"The process that measures the memory of {case} ({implementation}) failed: {reason}.")
    return Peak(**json.loads(done.stdout))


def _run_request(request: str) -> Peak:
    """Run a case in the child, after warming up on a smaller one so that no library is loaded during the run."""
    fields = json.loads(request)
    case = OpCase(**{**fields["case"], "size": tuple(fields["case"]["size"])})
    torch.set_num_threads(fields["threads"])
    with torch.no_grad():
        build(case.smaller(_WARM_UP_POSITIONS), fields["implementation"])()
        run = build(case, fields["implementation"])
        before = _reset_peak()
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
    return Peak(_peak_bytes() - before, seconds)


def _reset_peak() -> int:
    """Return the bytes of the resident set and reset its peak (Linux); elsewhere return the peak so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak  # bytes there, KiB elsewhere
    # Not getrusage: on Linux its peak includes that of the parent before exec, and is never reset.
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


if __name__ == "__main__":
    print(json.dumps(asdict(_run_request(sys.argv[1]))))
