"""Measure how time and memory of a search grow with the archive, on made features.

    python benchmarks/search_scale.py --folder DIR --output benchmarks/results/search_scale.json

DIR has room for 2.1 GB of table and 2.1 GB of vectors per million windows; they are deleted as soon as they are
measured. A table is made like those of `features` (1024 numbers a window as float16, files of 100 windows), in a
process of its own, and another process searches it: once to make the file of vectors, and then by a moment of it,
`--repeats` times. Seconds are wall clock, of which the medians count; memory is the largest resident set, of which the
pages of the memory-mapped file can be taken back by the system at any time and are given apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.retrieval.api import search
from nonlocal_video.retrieval.archive import open_archive

CHANNELS = 1024
FILE_WINDOWS = 100
SIZES = (10_000, 100_000, 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="Numbers of windows.")
    parser.add_argument("--repeats", type=int, default=5, help="Searches of each.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of the matrix products.")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.make is not None:
        make_table(arguments.measure, arguments.make)
        return
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.repeats)))
        return
    rows = []
    for size in arguments.sizes:
        table = arguments.folder / f"made-{size}.parquet"
        child = [sys.executable, *sys.argv, "--measure", str(table)]
        subprocess.run([*child, "--make", str(size)], check=True)
        try:
            done = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True)
            rows.append({"windows": size, "table_bytes": table.stat().st_size} | json.loads(done.stdout))
            print(json.dumps(rows[-1]), flush=True)
        finally:
            for path in (*arguments.folder.glob(table.name + "*"), *arguments.folder.glob(f".{table.name}*")):
                path.unlink()
    found = {"machine": describe_machine(), "channels": CHANNELS, "repeats": arguments.repeats, "sizes": rows}
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def make_table(table: Path, num_windows: int) -> None:
    """Write made features: each file has a direction of its own, and each window strays from it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    kind = pa.list_(pa.float16(), CHANNELS)
    writer = None
    for first in range(0, num_windows, 100 * FILE_WINDOWS):
        count = min(100 * FILE_WINDOWS, num_windows - first)
        number = first + np.arange(count)
        own = random.random((-(-count // FILE_WINDOWS), CHANNELS), dtype=np.float32)
        features = own[np.arange(count) // FILE_WINDOWS] + random.random((count, CHANNELS), dtype=np.float32)
        starts = (number % FILE_WINDOWS) * 1.28
        rows = pa.table(
            {
                "path": [f"archive/{file:06d}.mp4" for file in number // FILE_WINDOWS],
                "status": ["ok"] * count,
                "window_index": number % FILE_WINDOWS,
                "start_seconds": starts,
                "end_seconds": starts + 2.56,
                "centre_seconds": starts + 1.28,
                "feature": pa.FixedSizeListArray.from_arrays(pa.array(features.astype(np.float16).ravel()), type=kind),
                "model": ["made"] * count,
                "weights_sha256": ["0" * 64] * count,
                "layer": ["made"] * count,
                "window_frames": [64] * count,
                "frames_per_second": [25.0] * count,
                "stride_seconds": [1.28] * count,
                "error_code": pa.nulls(count, pa.string()),
            }
        )
        writer = writer or pq.ParquetWriter(table, rows.schema, compression="none", use_dictionary=["path", "model"])
        writer.write_table(rows)
    assert writer is not None
    writer.close()


def measure(table: Path, repeats: int) -> dict[str, Any]:
    """Return seconds and bytes of one archive."""
    started = time.perf_counter()
    num_windows = len(open_archive(table).windows)
    made = time.perf_counter() - started
    memory_of_making = memory()
    seconds, opening = [], []
    for repeat in range(repeats):
        started = time.perf_counter()
        open_archive(table)
        opening.append(time.perf_counter() - started)
        example = f"archive/{repeat % (num_windows // FILE_WINDOWS):06d}.mp4"
        started = time.perf_counter()
        found = search(table, like=example, at=10.0, top_k=20)
        seconds.append(time.perf_counter() - started)
        assert len(found) == 20
    return {
        "vectors_bytes": table.with_name(table.name + ".f16").stat().st_size,
        "seconds_to_make_vectors": round(made, 2),
        "seconds_to_open": round(statistics.median(opening), 3),
        "seconds_to_search": round(statistics.median(seconds), 3),
        "making": memory_of_making,
        "searching": memory(),
    }


def memory() -> dict[str, int]:
    """Return the largest resident set so far, and what is resident now by anonymous memory and by mapped files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    return {
        name: 1024 * int(fields[field].split()[0])
        for name, field in (("peak_bytes", "VmHWM"), ("own_bytes", "RssAnon"), ("mapped_bytes", "RssFile"))
    }


if __name__ == "__main__":
    main()
