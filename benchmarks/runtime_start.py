"""What the start of each runtime costs on a CPU, views by themselves or in a batch, and `torch.compile`.

    python benchmarks/runtime_start.py CLIP --output benchmarks/results/runtime_start.json

Start: a new process loads the default model and answers for the clip twice: by PyTorch, by OpenVINO with an empty
cache, and by OpenVINO with the compiled network in the cache, in turn. Seconds are those after the imports.
Batches: seconds a view with one view in a forward pass and with several, both runtimes in turn.
`torch.compile`: the folded network, compiled by inductor, which needs a C++ compiler; without one it says why not.
Each measure also counts processor seconds, in which other work of the machine shows less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import nonlocal_video as nlv
from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.paths import CACHE_VARIABLE

Figures = dict[str, float]
ONE_START = """
import json, sys, time
import nonlocal_video as nlv
nlv.load
marks = [(time.perf_counter(), time.process_time())]
with nlv.load(device="cpu", runtime=sys.argv[1]) as recognizer:
    for _ in range(2):
        recognizer.classify(sys.argv[2], fast=sys.argv[3] == "fast")
        marks.append((time.perf_counter(), time.process_time()))
names = ("first_answer", "second_answer")
print(json.dumps({
    f"{name}_{kind}": after[at] - before[at]
    for name, before, after in zip(names, marks, marks[1:]) for at, kind in enumerate(("seconds", "cpu_seconds"))
}))
"""


def start(runtime: str, clip: Path, view: str, cache: Path) -> Figures:
    """Answer for a clip in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_START, runtime, str(clip), view],
        env={**os.environ, CACHE_VARIABLE: str(cache)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: Figures = json.loads(done.stdout)
    return found


def timed(run: Callable[[], object], views: int) -> Figures:
    """Seconds a view."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {"seconds": wall / views, "cpu_seconds": processor / views}


def medians(rounds: list[Figures]) -> Figures:
    return {name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]}


def starts(clip: Path, view: str, rounds: int) -> dict[str, Any]:
    """The three starts in turn."""
    found: dict[str, list[Figures]] = {"torch": [], "openvino, empty cache": [], "openvino, from the cache": []}
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-") as name:
        for number in range(rounds):
            cache = Path(name) / str(number)
            found["torch"].append(start("torch", clip, view, cache))
            found["openvino, empty cache"].append(start("openvino", clip, view, cache))
            found["openvino, from the cache"].append(start("openvino", clip, view, cache))
            print({case: figures[-1] for case, figures in found.items()}, flush=True)
        (entry,) = cache.glob("openvino/*")
        size = entry.stat().st_size
    return {"entry_bytes": size, **{case: medians(figures) for case, figures in found.items()}}


def batches(view: str, sizes: list[int], rounds: int) -> dict[str, Any]:
    """Views by themselves and in a batch, and the network compiled by inductor."""
    found: dict[str, list[Figures]] = {}
    recognizers = {runtime: nlv.load(device="cpu", runtime=runtime) for runtime in ("torch", "openvino")}
    spec = recognizers["torch"].card.view(fast=view == "fast")
    views = torch.randn(
        max(sizes), 3, spec.num_frames, spec.crop, spec.crop, generator=torch.Generator().manual_seed(0)
    )
    cases: dict[str, tuple[Callable[[], object], int]] = {
        f"{runtime}, {size} at a time": (lambda r=recognizer, n=size: r.forward(views[:n]), size)
        for runtime, recognizer in recognizers.items()
        for size in sizes
    }
    inductor = torch.compile(recognizers["torch"].inference_network)
    one = views[:1].contiguous(memory_format=torch.channels_last_3d)

    def compiled() -> object:
        with torch.inference_mode():
            return inductor(one)

    cases["torch.compile, 1 at a time"] = (compiled, 1)
    refused: dict[str, str] = {}
    for number in range(1 + rounds):  # the first is not counted: it compiles
        for case, (run, size) in cases.items():
            if case in refused:
                continue
            try:
                figures = timed(run, size)
            except Exception as error:  # torch.compile without a compiler
                refused[case] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                continue
            found.setdefault(f"{case}, first" if number == 0 else case, []).append(figures)
        print(f"round {number} of {rounds}", flush=True)
    return {**{case: medians(figures) for case, figures in found.items()}, "refused": refused}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--view", choices=["full", "fast"], default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    figures = {
        "view": arguments.view,
        "rounds": arguments.rounds,
        "threads": torch.get_num_threads(),
        "start": starts(arguments.clip.resolve(), arguments.view, arguments.rounds),
        "batches": batches(arguments.view, arguments.batch_sizes, arguments.rounds),
        "load_of_the_machine": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "machine": describe_machine(),
    }
    print(json.dumps(figures, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
