"""Windows a second of `features` beside clips a second of `classify`, on clips of one view.

    python benchmarks/features.py CLIPS --output benchmarks/results/features.json

Each clip is the first span of a video that is as long as the model's view, encoded anew, so that both verbs decode the
same frames and run the network once. They take turns in one run, each with a new table, so that a busy machine disturbs
both alike; which comes first changes from turn to turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nonlocal_video as nlv
from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.inference.files import find_files
from nonlocal_video.video.encode import write_video

VERBS = ("classify", "features")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="+", help="Files and folders; clips that are shorter than a view are left out.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fast", action="store_true", help="The model card's cheaper view.")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, nlv.load("default", device=options.device) as recognizer:
        clips = Path(folder, "clips")
        clips.mkdir()
        num_clips = make_clips(recognizer, list(find_files(options.clips)), clips, fast=options.fast)
        seconds, cpu_seconds = measure(recognizer, clips, Path(folder), num_clips, options.rounds, fast=options.fast)
        spec = recognizer.card.view(fast=options.fast)
    rates = {verb: num_clips / statistics.median(times) for verb, times in seconds.items()}
    ratios, cpu_ratios = (
        [classify / features for classify, features in zip(*(spent[verb] for verb in VERBS), strict=True)]
        for spent in (seconds, cpu_seconds)
    )
    result = {
        "machine": describe_machine(),
        "model": recognizer.card.name,
        "input": f"{spec.num_frames} frames of {spec.crop} pixels",
        "device": str(recognizer.device),
        "threads": torch.get_num_threads(),
        "clips": num_clips,
        "load_average": [load_before, os.getloadavg()[0]],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "clips_per_second": rates["classify"],
        "windows_per_second": rates["features"],
        "features_against_classify": statistics.median(ratios),
        "features_against_classify_by_round": ratios,
        "features_against_classify_in_cpu_time": statistics.median(cpu_ratios),
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(f"{result['features_against_classify']:.3f} of classify's clips a second")


def make_clips(recognizer: nlv.Recognizer, files: Sequence[str], folder: Path, *, fast: bool) -> int:
    """Write the first view of each video, and return how many are long enough."""
    spec = recognizer.card.view(fast=fast)
    times = (np.arange(spec.num_frames) + 0.5) / spec.frames_per_second
    count = 0
    with nlv.VideoReader() as reader:
        for file in files:
            info = reader.probe(file)
            if info.duration_seconds < spec.num_frames / spec.frames_per_second:
                continue
            frames = reader.read(file, (info.start_seconds + times).tolist())
            shown = (frames.frames_thwc[index] for index in frames.frame_of_time)
            write_video(folder / f"{count:03}.mp4", shown, fps=spec.frames_per_second)
            count += 1
    return count


def measure(
    recognizer: nlv.Recognizer, clips: Path, folder: Path, num_clips: int, rounds: int, *, fast: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each verb in each round, by the clock and of all cores; the round before them does not count."""
    verbs: dict[str, Callable[[Path], Any]] = {
        "classify": lambda output: recognizer.classify_folder(clips, output=output, fast=fast),
        "features": lambda output: nlv.extract_features(recognizer, clips, output=output, fast=fast),
    }
    seconds: dict[str, list[float]] = {verb: [] for verb in VERBS}
    cpu_seconds: dict[str, list[float]] = {verb: [] for verb in VERBS}
    for number in range(-1, rounds):
        for verb in VERBS if number % 2 else reversed(VERBS):
            started, cpu_before = time.perf_counter(), sum(os.times()[:4])
            run = verbs[verb](folder / f"{verb}{number}.parquet")
            elapsed = time.perf_counter() - started
            assert run.counts == {"ok": num_clips}, run.counts
            if number >= 0:
                seconds[verb].append(elapsed)
                cpu_seconds[verb].append(sum(os.times()[:4]) - cpu_before)  # those of ended decoding processes, too
        print(f"round {number + 1} of {rounds}: {[times[-1:] for times in seconds.values()]}", file=sys.stderr)
    assert len(nlv.read_features(folder / "features0.parquet")) == num_clips  # a window a clip
    return seconds, cpu_seconds


if __name__ == "__main__":
    main()
