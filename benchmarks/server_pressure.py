"""Does the HTTP API answer, and say so, when the disk is nearly full or memory is at its limit, and as before later?

    sudo python benchmarks/server_pressure.py --minutes 60 --output benchmarks/results/server_pressure.json

Twenty programs each post one clip after another to `/v1/classify`, with a pause between two, so that the requests are
bounded. The time is divided into four equal phases:

- free: nothing is short;
- disk: the server's temporary folder, a file system of its own in memory (which needs the right to mount one), is
  filled to 95%;
- memory: the server's address space is limited to what it has and a little more (prlimit); its decoding processes,
  which start later, inherit that;
- free again: both are lifted.

Given are the answers of each phase by status and code, the median seconds, and what the server held at its end; what it
held every minute; and the answers of `/healthz`, which is asked every second. An answer without a sentence, or no
answer, is listed as `broken`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from page_soak import MIB, held_by
from page_visitor import make_clip, serving

from nonlocal_video.benchmark.machine import describe_machine

PROGRAMS = 20
PAUSE_SECONDS = 1.0
DISK_MIB = 400
"""Size of the server's temporary folder: the server leaves 256 MiB free, so that uploads fit while it is empty."""
FULL = 0.95
HEADROOM_MIB = 200
"""Less than the server keeps for the work in progress, so that it accepts no further clip."""
ANSWER_WITHIN_SECONDS = 300.0
HELD_EVERY_SECONDS = 60.0


class Program(threading.Thread):
    """Posts clips until it is told to stop."""

    def __init__(self, url: str, clip: Path, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url, self._clip, self._stop_asked = url, clip.read_bytes(), stop
        self.answers: list[tuple[float, str]] = []
        """Return when each answer came, on the monotonic clock less its seconds, and what it was."""
        self.seconds: list[float] = []

    def run(self) -> None:
        """Post, look at the answer, pause."""
        with httpx.Client(base_url=self._url, timeout=ANSWER_WITHIN_SECONDS) as http:
            while not self._stop_asked.is_set():
                started = time.monotonic()
                self.answers.append((started, self._post(http)))
                self.seconds.append(time.monotonic() - started)
                self._stop_asked.wait(PAUSE_SECONDS)

    def _post(self, http: httpx.Client) -> str:
        try:
            answer = http.post("/v1/classify", files={"file": ("clip.mp4", self._clip)})
            found = answer.json()
            if answer.status_code == 200 and found["status"] == "ok":
                return "answered"
            assert found["code"]
            assert len(found["message"]) > 10
            return f"{answer.status_code} {found['code']}"
        except (httpx.HTTPError, ValueError, KeyError, AssertionError) as error:
            return f"broken: {type(error).__name__}"


class Health(threading.Thread):
    """Asks `/healthz` every second until it is told to stop."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url, self._stop_asked = url, stop
        self.answers: Counter[str] = Counter()
        self.slowest_seconds = 0.0

    def run(self) -> None:
        """Ask, pause."""
        while not self._stop_asked.wait(1.0):
            started = time.monotonic()
            try:
                self.answers[str(httpx.get(f"{self._url}/healthz", timeout=ANSWER_WITHIN_SECONDS).status_code)] += 1
            except httpx.HTTPError as error:
                self.answers[f"broken: {type(error).__name__}"] += 1
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)


@contextmanager
def folder_of_its_own(folder: Path, size_mib: int) -> Iterator[None]:
    """Mount a file system in memory at a folder while the block runs."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def nearly_full(folder: Path) -> Iterator[None]:
    """Fill the file system to `FULL` while the block runs."""
    ballast = folder / "ballast"
    usage = psutil.disk_usage(str(folder))
    with ballast.open("wb") as file:
        for _ in range(max(0, int(FULL * usage.total - usage.used)) // MIB):
            file.write(bytes(MIB))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def little_memory(server: psutil.Process) -> Iterator[None]:
    """Limit a process's address space to what it has and `HEADROOM_MIB` while the block runs."""
    before = server.rlimit(resource.RLIMIT_AS)
    server.rlimit(resource.RLIMIT_AS, (server.memory_info().vms + HEADROOM_MIB * MIB, before[1]))
    try:
        yield
    finally:
        server.rlimit(resource.RLIMIT_AS, before)


@contextmanager
def nothing() -> Iterator[None]:
    """Change nothing."""
    yield


def measure(url: str, server: psutil.Process, folder: Path, clip: Path, seconds: float) -> dict[str, Any]:
    """Run the phases, of `seconds` each, with the programs working all the time."""
    phases = {
        "free": nothing(),
        "disk": nearly_full(folder),
        "memory": little_memory(server),
        "free again": nothing(),
    }
    stop = threading.Event()
    programs = [Program(url, clip, stop) for _ in range(PROGRAMS)]
    health = Health(url, stop)
    for thread in (*programs, health):
        thread.start()
    ends: dict[str, float] = {}
    held: dict[str, dict[str, float]] = {}
    every_minute = []
    began = time.monotonic()
    for name, phase in phases.items():
        with phase:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, HELD_EVERY_SECONDS))
                minutes = round((time.monotonic() - began) / 60, 1)
                every_minute.append({"phase": name, "minutes": minutes, **held_by(server, folder)})
                print(every_minute[-1], flush=True)
            held[name] = held_by(server, folder)
        ends[name] = time.monotonic()
    stop.set()
    for thread in (*programs, health):
        thread.join(ANSWER_WITHIN_SECONDS)
    found: dict[str, Any] = {}
    begins = -1.0
    for name, end in ends.items():
        answers = [
            (what, taken)
            for program in programs
            for (started, what), taken in zip(program.answers, program.seconds, strict=False)
            if begins <= started < end
        ]
        found[name] = {
            "answers": dict(Counter(what for what, _ in answers).most_common()),
            "median_seconds": round(statistics.median(taken for _, taken in answers), 2) if answers else None,
            "held_at_its_end": held[name],
        }
        begins = end
    return {
        "phases": found,
        "health": {"answers": dict(health.answers), "slowest_seconds": round(health.slowest_seconds, 2)},
        "held": every_minute,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="Of all four phases together.")
    parser.add_argument("--model", default="default")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-pressure-") as name:
        clip, temporary = Path(name) / "clip.mp4", Path(name) / "server"
        temporary.mkdir()
        make_clip(clip)
        with (
            folder_of_its_own(temporary, DISK_MIB),
            serving("--keep-minutes", "1", "--model", arguments.model, temporary=temporary) as (url, pid),
        ):
            measured = measure(url, psutil.Process(pid), temporary, clip, 60 * arguments.minutes / 4)
    figures = {
        "minutes": arguments.minutes,
        "model": Path(arguments.model).stem,
        "programs": PROGRAMS,
        "pause_seconds": PAUSE_SECONDS,
        "disk_mib": DISK_MIB,
        "memory_headroom_mib": HEADROOM_MIB,
        **measured,
        "machine": describe_machine(),
    }
    print(json.dumps(figures, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
