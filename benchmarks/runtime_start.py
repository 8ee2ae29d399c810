"""Measure the start of each runtime on a CPU, views by themselves or in a batch, and `torch.compile`.

    python benchmarks/runtime_start.py CLIP --output benchmarks/results/runtime_start.json
    python benchmarks/runtime_start.py CLIP --only batches --rounds 2 --output benchmarks/results/runtime_start.json

With `--only`, the other parts of the file are left as they are.
Start: a new process loads the default model and answers for the clip twice: by PyTorch, by OpenVINO with an empty
cache, and by OpenVINO with the compiled network in the cache, in turn. Seconds are those after the imports.
Batches: seconds a view with one view in a forward pass and with several, full and fast, both runtimes in turn.
Folder: the same of files with a view each, by PyTorch, decoded beside the network.
Compile: the folded network on a fast view, compiled by inductor; without a C++ compiler it says why not.
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
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.inference.request import ClipRequest
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


def noise(recognizer: nlv.Recognizer, view: str, number: int) -> torch.Tensor:
    """Views for the network."""
    spec = recognizer.card.view(fast=view == "fast")
    shape = (number, 3, spec.num_frames, spec.crop, spec.crop)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def in_turn(name: str, cases: dict[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, Figures]:
    """Medians of cases, each with its number of views; the first round is not counted but kept, as it compiles."""
    found: dict[str, list[Figures]] = {}
    for number in range(1 + rounds):
        for case, (run, size) in cases.items():
            found.setdefault(f"{case}, first" if number == 0 else case, []).append(timed(run, size))
        print(f"{name}, round {number} of {rounds}:", {case: one[-1] for case, one in found.items()}, flush=True)
    return {case: medians(figures) for case, figures in found.items()}


def batches(recognizers: dict[str, nlv.Recognizer], view: str, sizes: list[int], rounds: int) -> dict[str, Figures]:
    """Views by themselves and in a batch."""
    views = noise(recognizers["torch"], view, max(sizes))
    cases: dict[str, tuple[Callable[[], object], int]] = {
        f"{runtime}, {size} at a time": (lambda r=recognizer, n=size: r.forward(views[:n]), size)
        for runtime, recognizer in recognizers.items()
        for size in sizes
    }
    return in_turn(view, cases, rounds)


def compiled(recognizer: nlv.Recognizer, rounds: int) -> dict[str, Any]:
    """One fast view by the network as it is, and compiled by inductor."""
    view = noise(recognizer, "fast", 1)
    inductor = torch.compile(recognizer.inference_network)
    channels_last = view.contiguous(memory_format=torch.channels_last_3d)

    def by_inductor() -> object:
        with torch.inference_mode():
            return inductor(channels_last)

    cases = {"torch": (lambda: recognizer.forward(view), 1), "torch.compile": (by_inductor, 1)}
    try:
        return {"cases": in_turn("compile", cases, rounds)}
    except Exception as error:  # without a compiler
        return {"refused": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}


def folders(by_torch: nlv.Recognizer, clip: Path, rounds: int) -> dict[str, Figures]:
    """Some clips of one fast view by PyTorch, decoding beside it, with one and with two views in a forward pass."""
    files = [str(clip)] * 4

    def run(size: int) -> None:
        for outcome in classify_files(by_torch, files, ClipRequest(fast=True), batch_size=size):
            assert isinstance(outcome, Prediction), outcome

    cases = {f"torch, {size} at a time": (lambda n=size: run(n), len(files)) for size in (1, 2)}
    return in_turn("folder", cases, rounds)


def described(rounds: int, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Describe what is measured, with the number of rounds and the machine."""
    load_before = os.getloadavg()[0]
    found = measure()
    return {
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        **found,
        "load_of_the_machine": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "machine": describe_machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--view", choices=["full", "fast"], default="fast", help="of the start")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--only", choices=["start", "batches", "folder", "compile"])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    output, rounds = arguments.output, arguments.rounds
    figures = json.loads(output.read_text("utf-8")) if arguments.only and output and output.exists() else {}
    if arguments.only in (None, "start"):
        view = arguments.view
        figures["start"] = described(
            rounds, lambda: {"view": view, "cases": starts(arguments.clip.resolve(), view, rounds)}
        )
    if arguments.only != "start":
        by_torch, by_openvino = (nlv.load(device="cpu", runtime=runtime) for runtime in ("torch", "openvino"))
    if arguments.only in (None, "batches"):
        both, sizes = {"torch": by_torch, "openvino": by_openvino}, arguments.batch_sizes
        figures["batches"] = described(
            rounds, lambda: {"cases": {view: batches(both, view, sizes, rounds) for view in ("fast", "full")}}
        )
    if arguments.only in (None, "folder"):
        figures["folder"] = described(rounds, lambda: {"cases": folders(by_torch, arguments.clip, rounds)})
    if arguments.only in (None, "compile"):
        figures["compile"] = described(rounds, lambda: compiled(by_torch, rounds))
    print(json.dumps(figures, indent=1))
    if output is not None:
        output.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
