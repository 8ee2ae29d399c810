"""Measure what the default model's view of a clip costs: accuracy and seconds by frame count, rate and size.

    python benchmarks/default_views.py CLIPS --output default_views.json

CLIPS holds one folder per class, named like its label with _ for spaces. Every clip is scored on five spans, spread
evenly, each by itself: the middle one is the default view, all together tell the variants apart better. The table goes
to the screen, the same numbers with the machine's description to the JSON file.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from nonlocal_video.inference.preprocessing import ClipLoader
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.models.card import InputSpec
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.video.decode import VideoReader

WEIGHTS = Path(__file__).parents[1] / "weights" / "i3d-nl-k400.safetensors"
VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
# (frames, frames per second, crop). The frame's short side keeps the default's proportion to the crop, 256 to 224.
VARIANTS = (
    (64, 25.0, 224),
    (32, 12.5, 224),
    (32, 25.0, 224),
    (16, 25.0, 224),
    (64, 25.0, 160),
    (48, 25.0, 160),
    (32, 25.0, 160),
    (64, 25.0, 128),
)
NUM_SPANS = 5  # odd, so that the middle one is the span that a clip gets by default


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of CLASS/FILE")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()

    network, card = load_checkpoint(arguments.weights)
    paths = sorted(path for path in arguments.clips.glob("*/*") if path.suffix.lower() in VIDEO_SUFFIXES)
    labels = [path.parent.name.replace("_", " ") for path in paths]
    unknown = sorted(set(labels) - set(card.labels))
    if unknown or not paths:
        sys.exit(f"{arguments.clips} should hold folders named like the model's labels; found {unknown or 'no clips'}.")
    targets = [card.labels.index(label) for label in labels]

    print(f"{len(paths)} clips, {NUM_SPANS} spans each, {torch.get_num_threads()} threads")
    print(
        "frames | per second | crop | top-1, top-5: middle span | all spans | probability | G multiply-adds | seconds"
    )
    rows = []
    for num_frames, rate, crop in VARIANTS:
        spec = replace(
            card.input,
            num_frames=num_frames,
            frames_per_second=rate,
            crop=crop,
            short_side=round(crop * card.input.short_side / card.input.crop),
        )
        row = measure(network, spec, paths, targets) | cost(network, spec)
        rows.append(row)
        print(
            f"{num_frames} | {rate:g} | {crop} | {row['top1']}, {row['top5']} | {row['top1_of_all_spans']}, "
            f"{row['top5_of_all_spans']} | {row['mean_probability']:.3f} | "
            f"{row['giga_multiply_adds']:.0f} | {row['forward_seconds']:.2f}",
            flush=True,
        )
    if arguments.output:
        machine = {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        results = {
            "model": card.name,
            "num_clips": len(paths),
            "num_spans": NUM_SPANS,
            "machine": machine,
            "views": rows,
        }
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


@torch.inference_mode()
def measure(network: torch.nn.Module, spec: InputSpec, paths: Sequence[Path], targets: Sequence[int]) -> dict[str, Any]:
    """Scores every span of every clip by itself."""
    ranks, probabilities = [], []  # clips x spans
    with VideoReader() as reader:
        loader = ClipLoader(reader)
        for path, target in zip(paths, targets, strict=True):
            clip = loader.load(path, spec, ClipRequest(ViewCount(NUM_SPANS)), originals=None)
            for span in range(NUM_SPANS):
                logits = network(clip.network_input(span, 0))[0]
                ranks.append(int((logits > logits[target]).sum()))
                probabilities.append(logits.softmax(0)[target].item())
    middle = ranks[NUM_SPANS // 2 :: NUM_SPANS]
    return {
        "input": asdict(spec),
        "top1": sum(rank == 0 for rank in middle),
        "top5": sum(rank < 5 for rank in middle),
        "top1_of_all_spans": sum(rank == 0 for rank in ranks),
        "top5_of_all_spans": sum(rank < 5 for rank in ranks),
        "mean_probability": statistics.fmean(probabilities),
    }


@torch.inference_mode()
def cost(network: torch.nn.Module, spec: InputSpec, num_runs: int = 5) -> dict[str, float]:
    """The network's work for one view: its multiply-adds, and the wall time of the fastest of some runs.

    Other load on the machine moves even the fastest run; the multiply-adds are the same everywhere.
    """
    view = torch.zeros((1, 3, spec.num_frames, spec.crop, spec.crop))
    seconds = []
    for _ in range(num_runs):
        started = time.perf_counter()
        network(view)
        seconds.append(time.perf_counter() - started)
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(network).to("meta")(view.to("meta"))
    return {"giga_multiply_adds": counter.get_total_flops() / 2e9, "forward_seconds": min(seconds)}


if __name__ == "__main__":
    main()
