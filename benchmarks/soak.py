"""Hundreds of real clips through one folder run: does memory, or do processes, pile up?

    python benchmarks/soak.py CLIPS --files 500 --output benchmarks/results/soak.json

The clips of the folder take turns under new names (links). The network is small and untrained, so that reading, where
leaks are to be expected, has most of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.inference.files import find_files
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.prediction import Failure
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.results import ResultFile
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.checkpoint import build_network

CARD = ModelCard(
    name="soak",
    architecture="resnet3d",
    config={"num_classes": 10, "width": 8, "blocks_per_stage": [1, 1, 1, 1], "nonlocal_blocks": {"layer3.0": {}}},
    input=InputSpec(32, 25.0, 256, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    labels=tuple(f"class {index}" for index in range(10)),
)


def soak(clips: Path, num_files: int, *, workers: int) -> dict[str, Any]:
    """Figures of one run: rows by outcome, memory of this process and of its children after each tenth."""
    process = psutil.Process()
    rss: list[dict[str, float]] = []
    outcomes: Counter[str] = Counter()
    sources = list(find_files([clips]))
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-soak-") as name:
        folder = Path(name)
        for number in range(num_files):
            source = Path(sources[number % len(sources)])
            os.symlink(source.resolve(), folder / f"{number:06}{source.suffix}")
        output = folder / "table.parquet"
        started = time.perf_counter()
        with (
            Recognizer(build_network(CARD), CARD, device="cpu") as recognizer,
            ResultFile(output, {}, top_k=5, resume=False) as results,
        ):
            files = results.still_to_do(find_files([folder], leave_out=ResultFile.files_of(output)))
            for outcome in classify_files(recognizer, files, ClipRequest(), workers=workers):
                results.append(outcome.path, outcome.to_row())
                outcomes[outcome.error.code if isinstance(outcome, Failure) else "ok"] += 1
                if outcomes.total() % max(1, num_files // 10) == 0:
                    rss.append(_memory(process, outcomes.total()))
                    print(rss[-1], flush=True)
        seconds = time.perf_counter() - started
    return {
        "files": num_files,
        "distinct_clips": len(sources),
        "outcomes": dict(outcomes),
        "seconds": round(seconds, 1),
        "files_per_second": round(num_files / seconds, 2),
        "workers": workers,
        "memory": rss,
        "machine": describe_machine(),
    }


def _memory(process: psutil.Process, num_files: int) -> dict[str, float]:
    children = process.children(recursive=True)
    return {
        "files": num_files,
        "parent_mib": round(process.memory_info().rss / 2**20, 1),
        "children": len(children),
        "children_mib": round(sum(child.memory_info().rss for child in children) / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    figures = soak(arguments.clips, arguments.files, workers=arguments.workers)
    print(json.dumps(figures, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
