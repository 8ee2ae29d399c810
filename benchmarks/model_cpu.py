"""Measure views and folders of clips on a plain CPU: PyTorch as trained, as `classify` runs it, and OpenVINO.

    python benchmarks/model_cpu.py CLIPS --output benchmarks/results/model_cpu.json

All are measured by turns in one run, so that a busy machine disturbs all alike; docs/speed.md is made from the file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, get_args

import torch

import nonlocal_video as nlv
from nonlocal_video.benchmark.model import benchmark_model
from nonlocal_video.benchmark.pipeline import benchmark_pipeline
from nonlocal_video.inference.files import find_files
from nonlocal_video.inference.runtimes.choice import Runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="+", help="Files and folders; all clips must be readable.")
    parser.add_argument("--rounds", type=int, default=7, help="Turns of the network alone.")
    parser.add_argument("--folder-rounds", type=int, default=3, help="Turns of the folder.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load_before = os.getloadavg()[0]
    network = benchmark_model(
        ["default"], device="cpu", runtimes=("eager", "torch", "openvino"), rounds=options.rounds, notify=notify
    )
    folders = folder_runs(list(find_files(options.clips)), options.folder_rounds)
    load = {"load_average_before": load_before, "load_average_after": os.getloadavg()[0], "niceness": os.nice(0)}
    options.output.write_text(json.dumps({**load, "network": network, "folders": folders}, indent=1) + "\n", "utf-8")


def folder_runs(files: list[str], rounds: int) -> list[dict[str, Any]]:
    """`benchmark pipeline` of each view with each runtime; the runtimes take turns."""
    found = []
    with nlv.load("default", device="cpu") as by_torch, nlv.load("default", runtime="openvino") as by_openvino:
        recognizers = (by_torch, by_openvino)
        assert {recognizer.runtime for recognizer in recognizers} == set(get_args(Runtime))
        for fast in (False, True):
            for number in range(rounds):
                for recognizer in recognizers:
                    notify(f"{'fast' if fast else 'full'} view, {recognizer.runtime}, turn {number + 1} of {rounds}")
                    measured = benchmark_pipeline(recognizer, files, fast=fast, rounds=1, notify=notify)
                    found.append({"view": "fast" if fast else "full", "turn": number, **measured})
    return found


def notify(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
