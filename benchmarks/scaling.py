"""Measure folder runs: time, memory and output files from 10 to 10,000 clips; time on 1 and on 2 cores.

    python benchmarks/scaling.py files --output benchmarks/results/scaling.json
    python benchmarks/scaling.py cores CLIPS --output benchmarks/results/scaling.json

Each run is `nonlocal-video classify FOLDER --output TABLE.parquet` in a process of its own, whose rows are timed as
they are printed: from its start to the first row, from the first to the last, and on to its end. Peak memory is the
highest resident set that the system has recorded, of the command and of the largest decoding process.

files: hard links to small H.264 clips and a tiny network (of this module, run by PyTorch in one thread: several would
spend most of the time on waiting for each other), so that decoding and the run's own work are what is measured; then
the finished run once more with `--resume`.

cores: the default model on the first clips of a folder, by both runtimes on 1 and 2 cores in turn (`taskset`), the
compiled networks in the cache. Each part replaces its own part of the output.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from torch import nn

import nonlocal_video as nlv
from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.paths import CACHE_VARIABLE
from nonlocal_video.video.encode import write_video

HERE = Path(__file__).resolve().parent
SIZES = (10, 100, 1_000, 10_000)
DISTINCT_CLIPS = 10
LOOK_SECONDS = 0.2
"""Time between two looks at the memory of the decoding processes, which the system records at its highest."""


def network() -> tuple[nn.Module, nlv.ModelCard]:
    """Return a network that takes next to no time, and its card."""
    layers = nn.Sequential(nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(24, 5))
    for parameter in layers.parameters():
        nn.init.zeros_(parameter)
    spec = nlv.InputSpec(8, 8.0, 72, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return layers, nlv.ModelCard("tiny", "", {}, spec, labels=tuple(f"class {index}" for index in range(5)))


@dataclass
class Run:
    """A command that printed a row a file."""

    started: float
    ended: float = 0.0
    cpu_seconds: float = 0.0
    rows: list[float] = field(default_factory=list)
    """Times at which the rows were printed."""
    parent_bytes: int = 0
    children_bytes: dict[int, int] = field(default_factory=dict)
    """Peak of each child by its process id."""

    def figures(self) -> dict[str, float]:
        """Return seconds of the run and of its three parts, and memory."""
        found: dict[str, float] = {
            "seconds": self.ended - self.started,
            "cpu_seconds": self.cpu_seconds,
            "peak_mib": self.parent_bytes / 2**20,
        }
        if self.rows:
            found |= {
                "start_seconds": self.rows[0] - self.started,
                "seconds_a_file": (self.rows[-1] - self.rows[0]) / max(1, len(self.rows) - 1),
                "end_seconds": self.ended - self.rows[-1],
                "decoding_processes": len(self.children_bytes),
                "child_peak_mib": max(self.children_bytes.values(), default=0) / 2**20,
            }
        return found


def run(arguments: Sequence[str], *, cores: Sequence[int] = (), threads: int | None = None, cache: Path) -> Run:
    """Classify in a process of its own, on some cores or all, with as many threads as suit them or some."""
    command = [sys.executable, "-m", "nonlocal_video", "classify", "--device", "cpu", "--json", *arguments]
    if cores:
        command = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    environment = {**os.environ, CACHE_VARIABLE: str(cache)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    found = Run(time.perf_counter())
    with subprocess.Popen(
        command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        over = threading.Event()
        looking = threading.Thread(target=look, args=(psutil.Process(process.pid), found.children_bytes, over))
        looking.start()
        assert process.stdout is not None
        found.rows.extend(time.perf_counter() for _ in process.stdout)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        found.ended = time.perf_counter()
        over.set()
        looking.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}.")
    found.cpu_seconds = usage.ru_utime + usage.ru_stime  # those of its decoding processes are among them
    found.parent_bytes = 1024 * usage.ru_maxrss
    return found


def look(process: psutil.Process, peaks: dict[int, int], over: threading.Event) -> None:
    """Keep the last known peak of each child of a process: of one that was just forked it is the parent's."""
    while not over.wait(LOOK_SECONDS):
        with suppress(psutil.NoSuchProcess):
            for child in process.children(recursive=True):
                peaks[child.pid] = peak(child.pid) or peaks.get(child.pid, 0)


def peak(pid: int) -> int:
    """Return the highest resident set of a process so far, in bytes; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0


def make_clips(folder: Path) -> list[Path]:
    """Write clips of 1 s, 160 x 120 pixels, a ground of squares that moves."""
    paths = [folder / f"clip {seed}.mp4" for seed in range(DISTINCT_CLIPS)]
    for seed, path in enumerate(paths):
        ground = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
        write_video(path, (np.roll(ground, (seed + 1) * index, axis=1) for index in range(25)), fps=25)
    return paths


def grow(folder: Path, sizes: Sequence[int], repeats: int) -> dict[str, Any]:
    """Classify folders of these sizes; the small ones several times, of which the medians count."""
    clips = make_clips(folder)
    rows = []
    for size in sizes:
        taken = folder / f"{size} clips"
        taken.mkdir()
        for number in range(size):
            os.link(clips[number % len(clips)], taken / f"{number:06}.mp4")
        times: list[dict[str, float]] = []
        resumed: list[dict[str, float]] = []
        for repeat in range(repeats if size <= 100 else 1):
            table = folder / f"{size} {repeat}.parquet"
            arguments = [str(taken), "--model", "scaling:network", "--runtime", "torch", "--output", str(table)]
            done = run(arguments, threads=1, cache=folder / "cache")
            assert len(done.rows) == size
            times.append(done.figures())
            again = run([*arguments, "--resume"], threads=1, cache=folder / "cache")
            assert not again.rows
            resumed.append(again.figures())
        rows.append(
            {
                "files": size,
                "runs": len(times),
                **medians(times),
                "table_bytes": table.stat().st_size,
                "journal_bytes": table.with_name(f"{table.name}.journal").stat().st_size,
                "resume": medians(resumed),
                "load_average": round(os.getloadavg()[0], 1),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        shutil.rmtree(taken)
    return {"clip_bytes": round(statistics.mean(clip.stat().st_size for clip in clips)), "sizes": rows}


def compare_cores(folder: Path, clips: Path, num_clips: int, rounds: int) -> dict[str, Any]:
    """Classify the first clips of a folder on 1 and 2 cores by both runtimes, in turn."""
    taken = folder / "clips"
    taken.mkdir()
    for number, path in enumerate(sorted(clips.rglob("*.mp4"))[:num_clips]):
        shutil.copy(path, taken / f"{number}.mp4")  # and so they need not be read from the disk
    available = sorted(os.sched_getaffinity(0))
    cases = [(runtime, cores) for runtime in ("torch", "openvino") for cores in (1, 2)]
    found: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
    for number in range(1 + rounds):  # the first is not counted: OpenVINO compiles
        for runtime, cores in cases if number % 2 else reversed(cases):
            table = folder / f"{runtime} {cores} {number}.parquet"
            arguments = [str(taken if number else taken / "0.mp4"), "--runtime", runtime, "--output", str(table)]
            figures = run(arguments, cores=available[:cores], cache=folder / "cache").figures()
            print(number, runtime, cores, json.dumps(figures), flush=True)
            if number:
                found[runtime, cores].append({name: round(figure, 4) for name, figure in figures.items()})
    rows = [{"runtime": runtime, "cores": cores, "runs": found[runtime, cores]} for runtime, cores in cases]
    return {"clips": len(list(taken.iterdir())), "rounds": rounds, "cases": rows}


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: round(statistics.median(one[name] for one in runs), 4) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["files", "cores"])
    parser.add_argument("clips", type=Path, nargs="?", help="folder of clips, for `cores`")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of files")
    parser.add_argument("--repeats", type=int, default=3, help="runs of folders of up to 100 files")
    parser.add_argument("--num-clips", type=int, default=8, help="clips of a run of `cores`")
    parser.add_argument("--rounds", type=int, default=2, help="counted runs of each case of `cores`")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "files": lambda folder: grow(folder, arguments.sizes, arguments.repeats),
        "cores": lambda folder: compare_cores(folder, arguments.clips, arguments.num_clips, arguments.rounds),
    }
    if arguments.part == "cores" and arguments.clips is None:
        parser.error("cores needs a folder of clips.")
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-scaling-") as name:
        found = parts[arguments.part](Path(name))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, check=True, capture_output=True, text=True)
    results = json.loads(arguments.output.read_text("utf-8")) if arguments.output.exists() else {}
    results[arguments.part] = found | {
        "commit": commit.stdout.strip(),
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "machine": describe_machine(),
    }
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
