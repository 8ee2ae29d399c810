"""The most memory that one run of a case takes beyond its inputs, from the resident set of a process of its own."""

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

from nonlocal_video.benchmark.ops_cases import OpCase, Way, build
from nonlocal_video.errors import NonlocalVideoError

_WARM_UP_POSITIONS = 1152
# Blocks of 64 KiB and more go back to the system when they are freed: otherwise the run could live on what the
# warm-up left, and cost nothing.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Peak:
    """One run in a fresh process."""

    bytes: int
    """Highest resident set during the run less the one before it, in which the inputs and weights are."""
    seconds: float


def measure_peak(case: OpCase, way: Way, *, threads: int) -> Peak:
    """Run a case once in a fresh process."""
    request = json.dumps({"case": asdict(case), "way": way, "threads": threads})
    command = [sys.executable, "-m", "nonlocal_video.benchmark.peak_memory", request]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | _ENVIRONMENT)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise NonlocalVideoError(f"The process that should measure the memory of {case} ({way}) failed: {reason}.")
    return Peak(**json.loads(done.stdout))


def _run_request(request: str) -> Peak:
    """In the child: warm up on a smaller case, so that no library is loaded during the run, and run."""
    fields = json.loads(request)
    case = OpCase(**{**fields["case"], "size": tuple(fields["case"]["size"])})
    torch.set_num_threads(fields["threads"])
    with torch.no_grad():
        build(case.smaller(_WARM_UP_POSITIONS), fields["way"])()
        run = build(case, fields["way"])
        before = _reset_peak()
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
    return Peak(_peak_bytes() - before, seconds)


def _reset_peak() -> int:
    """Bytes of the resident set, from which its peak counts anew (on Linux; elsewhere the peak so far is given)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak  # bytes there, KiB elsewhere
    # Not getrusage: on Linux its peak also has that of the parent before it became this program, and is never reset.
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


if __name__ == "__main__":
    print(json.dumps(asdict(_run_request(sys.argv[1]))))
