"""Feeds damaged videos to the reader: each must give frames or an error code, in bounded time and memory.

    python benchmarks/fuzz.py --files 100000 --output benchmarks/results/fuzz.json

Seeds are small clips in ten codecs and nine containers, made with PyAV; a mutant has flipped bytes, a cut-off end, a
zeroed, doubled or missing block, or the beginning of another seed. A row for every mutant: "ok" or one of the error
codes. What must not happen: another exception, a reader that answers after its limit, a parent that grows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.errors import VideoError
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.limits import DecodeLimits
from nonlocal_video.video.sampling import plan_views

# file name, encoder, pixel format, options
SEEDS = (
    ("h264.mp4", "libx264", "yuv420p", {"preset": "veryfast"}),
    ("h264.flv", "libx264", "yuv420p", {"preset": "ultrafast"}),
    ("hevc.mkv", "libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    ("vp8.webm", "libvpx", "yuv420p", {"deadline": "realtime"}),
    ("vp9.webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime"}),
    ("av1.mp4", "libsvtav1", "yuv420p", {"preset": "12"}),
    ("mpeg4.avi", "mpeg4", "yuv420p", {"bf": "2"}),
    ("mpeg2.ts", "mpeg2video", "yuv420p", {}),
    ("mjpeg.mov", "mjpeg", "yuvj420p", {}),
    ("gif.gif", "gif", "rgb8", {}),
)
TIMEOUT_SECONDS = 10.0
_GRACE_SECONDS = 5.0  # to kill a child and to start another on a busy machine


@dataclass
class Report:
    """Outcomes of the mutants."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    """Seed -> `ok` or error code -> files."""
    unexpected: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    rss_mib: list[float] = field(default_factory=list)
    """Memory of this process, after each tenth of the files."""

    def to_row(self) -> dict[str, Any]:
        total: Counter[str] = Counter()
        for counts in self.outcomes.values():
            total += counts
        return {
            "files": total.total(),
            "total": dict(total.most_common()),
            "by_seed": {seed: dict(counts.most_common()) for seed, counts in self.outcomes.items()},
            "unexpected": self.unexpected,
            "slowest_seconds": round(self.slowest_seconds, 2),
            "parent_rss_mib": self.rss_mib,
        }


def make_seeds(folder: Path) -> list[Path]:
    """Clips of 24 frames of 96 x 64 pixels with moving content.

    In a process of its own: SVT-AV1 takes real-time priority where it may (as root), for the thread that calls it and
    so for all that this one starts, and the machine would do nothing else.
    """
    environment = {**os.environ, "SVT_LOG": "0"}  # or it says how many threads it has
    subprocess.run([sys.executable, __file__, "--only-seeds", str(folder)], env=environment, check=True)
    return [folder / name for name, *_ in SEEDS]


def _encode_seeds(folder: Path) -> None:
    y, x = np.mgrid[0:64, 0:96]
    for name, codec, pixel_format, codec_options in SEEDS:
        path = folder / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(12), options=dict(codec_options))
            stream.width, stream.height, stream.pix_fmt = 96, 64, pixel_format
            for number in range(24):
                wave = np.stack([(x * 2 + number * 9) % 256, (y * 3 + number * 5) % 256, (x + y) * 2 % 256], axis=-1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(wave.astype(np.uint8), format="rgb24")))
            container.mux(stream.encode())


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A damaged copy; the same for the same state of `chance`."""
    damaged = bytearray(data)
    kind = chance.choice(("flip", "flip_header", "noise", "truncate", "zero", "double", "drop", "splice"))
    size = len(damaged)
    start = chance.randrange(size)
    length = chance.randint(1, max(1, size // 8))
    if kind in ("flip", "flip_header"):
        end = size if kind == "flip" else min(size, 256)
        for _ in range(chance.randint(1, 16)):
            damaged[chance.randrange(end)] ^= 1 << chance.randrange(8)
    elif kind == "noise":
        for _ in range(max(1, int(size * chance.choice((0.001, 0.01))))):
            damaged[chance.randrange(size)] = chance.randrange(256)
    elif kind == "truncate":
        del damaged[start:]
    elif kind == "zero":
        damaged[start : start + length] = bytes(len(damaged[start : start + length]))
    elif kind == "double":
        damaged[start:start] = damaged[start : start + length]
    elif kind == "drop":
        del damaged[start : start + length]
    else:
        other = chance.choice(others)
        header = chance.randint(1, min(len(other), 512))
        damaged[:header] = other[:header]
    return bytes(damaged)


def fuzz(num_files: int, *, seed: int, workers: int, notify: Callable[[str], None] = lambda text: None) -> Report:
    """Reads `num_files` mutants, the seeds taking turns; the same files for the same `seed`."""
    report, lock = Report(), threading.Lock()
    parent = psutil.Process()
    done = 0
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-fuzz-") as name:
        folder = Path(name)
        contents = {path.name: path.read_bytes() for path in make_seeds(folder)}
        report.outcomes = {seed_name: Counter() for seed_name in contents}

        def share(worker: int) -> None:
            nonlocal done
            with VideoReader(limits=DecodeLimits(timeout_seconds=TIMEOUT_SECONDS)) as reader:
                for number in range(worker, num_files, workers):
                    seed_name = SEEDS[number % len(SEEDS)][0]
                    chance = random.Random(f"{seed}/{number}")
                    path = folder / f"{number}.{seed_name.partition('.')[2]}"
                    path.write_bytes(mutate(contents[seed_name], list(contents.values()), chance))
                    started = time.perf_counter()
                    try:
                        info = reader.probe(path)
                        (view,) = plan_views(info, num_frames=4, frames_per_second=2)
                        frames = reader.read(path, view.times_seconds)
                        outcome = "ok" if len(frames.frames_thwc) else "no frames"
                    except VideoError as error:
                        outcome = error.code
                    except Exception as error:  # the very thing that is looked for
                        outcome = type(error).__name__
                    elapsed = time.perf_counter() - started
                    path.unlink()
                    with lock:
                        done += 1
                        report.outcomes[seed_name][outcome] += 1
                        report.slowest_seconds = max(report.slowest_seconds, elapsed)
                        allowed = {"ok", "not_a_video", "no_video_stream", "corrupt", "unsupported_codec", "too_large",
                                   "too_long", "timeout", "decoder_crashed", "out_of_memory"}  # fmt: skip
                        # It asked twice: for the probe and for the frames.
                        if outcome not in allowed or elapsed > 2 * TIMEOUT_SECONDS + _GRACE_SECONDS:
                            report.unexpected.append(f"{seed_name} {number}: {outcome} after {elapsed:.1f} s")
                        if done % max(1, num_files // 10) == 0:
                            report.rss_mib.append(round(parent.memory_info().rss / 2**20, 1))
                            notify(f"{done} of {num_files}, {len(report.unexpected)} unexpected")

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(share, range(workers)))
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="decoding processes")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--only-seeds", type=Path, metavar="FOLDER", help="only write the seeds there")
    arguments = parser.parse_args()
    if arguments.only_seeds is not None:
        _encode_seeds(arguments.only_seeds)
        return
    started = time.perf_counter()
    report = fuzz(arguments.files, seed=arguments.seed, workers=arguments.workers, notify=print)
    row = report.to_row() | {
        "seed": arguments.seed,
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "machine": describe_machine(),
    }
    print(json.dumps(row, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(row, indent=1) + "\n", "utf-8")
    if report.unexpected:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
