"""Join labelled clips into one video and show its timeline, each window alone and refined, for better or worse.

    python benchmarks/join_clips.py CLIPS... --output FOLDER [--seed 0] [--pieces] [--fast] [--shortest-seconds 2.56]

CLIPS are folders with one folder of clips a class. Writes joined.mp4, truth.segments.csv, timeline.json, .csv and .png
into the folder, and prints every window with its true class and both answers, and the figures of both.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import nonlocal_video as nlv
from nonlocal_video.datasets.segment_table import Span
from nonlocal_video.evaluation.segment_metrics import SegmentedVideo, measure_segments
from nonlocal_video.inference.files import find_files
from nonlocal_video.inference.timeline_files import write_timeline
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import VideoWriter
from nonlocal_video.video.transforms import resize

FRAMES_PER_SECOND = 25
HEIGHT, WIDTH = 256, 340


def pieces_of(paths: list[str], reader: VideoReader, *, cut: bool, seed: int) -> list[tuple[str, float, float]]:
    """(clip, start, end) in the order in which they are joined: whole clips, or halves interleaved."""
    random = np.random.default_rng(seed)
    pieces = []
    for path in paths:
        info = reader.probe(path)
        middle = (info.start_seconds + info.end_seconds) / 2
        bounds = [info.start_seconds, *([middle] if cut else []), info.end_seconds]
        pieces += [(path, bounds[at], bounds[at + 1]) for at in range(len(bounds) - 1)]
    return [pieces[at] for at in random.permutation(len(pieces))]


def frames_of(path: str, start: float, end: float, reader: VideoReader) -> Iterator[NDArray[np.uint8]]:
    """The frames of a part at the joined video's rate and size."""
    times = start + (np.arange(max(1, round((end - start) * FRAMES_PER_SECOND))) + 0.5) / FRAMES_PER_SECOND
    with reader.stream(path, np.minimum(times, end).tolist(), chunk_frames=4) as stream:
        shown = iter(stream)
        chunk, first = next(shown), 0
        for frame in stream.frame_of_time.tolist():
            while frame >= first + len(chunk.frames_thwc):
                first += len(chunk.frames_thwc)
                chunk = next(shown)
            image = torch.from_numpy(chunk.frames_thwc[frame - first : frame - first + 1])
            yield resize(image, (HEIGHT, WIDTH))[0].numpy()


def join(paths: list[str], output: Path, *, cut: bool, seed: int) -> list[Span]:
    """Write joined.mp4 and truth.segments.csv; the true segments."""
    truth: list[Span] = []
    written = 0
    with VideoReader() as reader, VideoWriter(output / "joined.mp4", fps=FRAMES_PER_SECOND) as writer:
        for path, start, end in pieces_of(paths, reader, cut=cut, seed=seed):
            first = written
            for frame in frames_of(path, start, end, reader):
                writer.write(frame)
                written += 1
            label = Path(path).parent.name.replace("_", " ")
            truth.append(Span(first / FRAMES_PER_SECOND, written / FRAMES_PER_SECOND, label))
    with open(output / "truth.segments.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "start_seconds", "end_seconds", "label"])
        rows.writerows(["joined.mp4", span.start_seconds, span.end_seconds, span.label] for span in truth)
    return truth


def label_at(truth: list[Span], seconds: float) -> str:
    """The true class at a time; the last one's after the end."""
    return next((span.label for span in truth if seconds < span.end_seconds), truth[-1].label)


def show(timeline: nlv.Timeline, truth: list[Span], rule: dict[str, Any]) -> None:
    """Every window, then the figures of both answers."""
    right = np.zeros(2, dtype=int)
    for window, (start, end) in enumerate(zip(timeline.starts, timeline.ends, strict=True)):
        true = label_at(truth, (start + end) / 2)
        answers = timeline.raw_top(window, 1)[0], timeline.top(window, 1)[0]
        right += [answer.label == true for answer in answers]
        shown = [f"{'+' if answer.label == true else '-'} {answer.label} {answer.score:.0%}" for answer in answers]
        print(f"{start:7.2f} s  {true:32s} {shown[0]:42s} {shown[1]}")
    for name, number, one in zip(("alone", "refined"), right, (timeline.in_context("none"), timeline), strict=True):
        found = [Span(s.start_seconds, s.end_seconds, s.label or "", s.score) for s in one.segments(**rule)]
        scores = measure_segments([SegmentedVideo("joined.mp4", 0.0, float(one.ends[-1]), truth, found)])
        figures = {"edit": scores.edit, **scores.f1, "map": scores.mean_average_precision["map"]}
        words = ", ".join(f"{key} {value or 0:.1f}" for key, value in figures.items())
        print(f"{name:8s} {number} of {len(timeline)} windows right, {len(found)} segments, {words}")


def main() -> None:
    """Join, answer, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=1000, help="Clips at most, chosen at random.")
    parser.add_argument("--pieces", action="store_true", help="Cut the clips in two and interleave them.")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--shortest-seconds", type=float, default=0.0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    paths = list(find_files(options.clips))
    kept = np.random.default_rng(options.seed).permutation(len(paths))[: options.most]
    truth = join([paths[at] for at in kept], options.output, cut=options.pieces, seed=options.seed)
    rule = {"shortest_seconds": options.shortest_seconds}
    with nlv.load("default") as recognizer:
        timeline = recognizer.timeline(options.output / "joined.mp4", fast=options.fast)
    for ending in (".json", ".csv", ".png"):
        write_timeline(options.output / f"timeline{ending}", timeline, **rule)
    show(timeline, truth, rule)


if __name__ == "__main__":
    main()
