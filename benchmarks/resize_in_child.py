"""Measure resizing in the decoding process, which has NumPy and Pillow, but no PyTorch.

    python benchmarks/resize_in_child.py [CLIP]

The frame is the first of CLIP, resized to each size, or noise. Per frame, in milliseconds of one thread: handing it
over through shared memory (a copy by the decoding process, one by its reader), resizing it as the reader does, the same
with NumPy, bit for bit, and with Pillow, whose values differ. Then seconds, memory and address space of importing
PyTorch in a process with the decoding process's modules.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.video import VideoReader
from nonlocal_video.video._shared_frames import SharedFrames
from nonlocal_video.video.transforms import resize, resized_size

SIZES = ((720, 1280), (1080, 1920), (2160, 3840))
SHORT_SIDE = 256
ROUNDS = 15
BLOCK = 32
"""Output columns for which NumPy multiplies at a time: only their own input columns take part."""
IMPORTS = """
import time
def memory():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [int(lines[name].split()[0]) / 2**20 for name in ("VmRSS", "VmSize")]
import av, decord, numpy, PIL.Image
before, started = memory(), time.perf_counter()
import torch
print(*before, *memory(), time.perf_counter() - started)
"""

Axis = list[tuple[int, int, int, int, NDArray[np.float64]]]


def axis_of(size: int, target: int) -> tuple[Axis, int]:
    """Return PyTorch's weights of an axis by blocks of output positions, and the bits after their binary point.

    A block is (first, end) of the input, (first, end) of the output, and weights (input, output), whole numbers.
    """
    scale = size / target
    support = max(scale, 1.0)
    centres = scale * (np.arange(target) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(int), 0)
    end = np.minimum((centres + support + 0.5).astype(int), size)
    rows = []
    for centre, low, high in zip(centres, first, end, strict=True):
        weights = np.maximum(1 - np.abs((np.arange(low, high) - centre + 0.5) / support), 0)
        rows.append(weights / weights.sum())
    most, bits = max(row.max() for row in rows), 0
    while bits < 22 and int(0.5 + most * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    blocks: Axis = []
    for start in range(0, target, BLOCK):
        stop = min(start + BLOCK, target)
        low, high = first[start], end[stop - 1]
        weights = np.zeros((high - low, stop - start), np.float64)
        for column in range(start, stop):
            whole = (0.5 + rows[column] * (1 << bits)).astype(np.int16)
            weights[first[column] - low : end[column] - low, column - start] = whole
        blocks.append((low, high, start, stop, weights))
    return blocks, bits


def resized_by_numpy(frame: NDArray[np.uint8], columns: tuple[Axis, int], rows: tuple[Axis, int]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) with PyTorch's bits; sums of whole numbers up to 2^25 are exact in float64."""

    def along_last(values: NDArray[np.uint8], axis: tuple[Axis, int]) -> NDArray[np.uint8]:
        blocks, bits = axis
        result = np.empty((*values.shape[:-1], blocks[-1][3]), np.uint8)
        floats = values.astype(np.float64)
        for low, high, start, stop, weights in blocks:
            sums = floats[..., low:high] @ weights
            result[..., start:stop] = np.minimum((sums.astype(np.int32) + (1 << (bits - 1))) >> bits, 255)
        return result

    planes = np.ascontiguousarray(frame.transpose(2, 0, 1))
    wide = along_last(planes, columns)
    return along_last(np.ascontiguousarray(wide.transpose(0, 2, 1)), rows).transpose(2, 1, 0)


def milliseconds(work: Callable[[], object]) -> float:
    """Return the shortest of several rounds, which other programs have disturbed least."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return 1000 * min(seconds)


def measure(frame: NDArray[np.uint8], shared: SharedFrames) -> str:
    """Return a line for a frame (H, W, 3)."""
    height, width = frame.shape[:2]
    target = resized_size(height, width, SHORT_SIDE)
    columns, rows = axis_of(width, target[1]), axis_of(height, target[0])
    slot = shared.slot(0, frame.nbytes).reshape(frame.shape)
    received = np.empty_like(frame)

    def hand_over() -> None:
        slot[:] = frame
        received[:] = slot

    by_torch = resize(torch.from_numpy(frame)[None], target)[0].numpy()
    if not np.array_equal(resized_by_numpy(frame, columns, rows), by_torch):
        raise SystemExit(f"NumPy's bits differ from PyTorch's at {width} x {height}: the comparison is not fair.")
    image = Image.fromarray(frame)
    by_pillow = np.asarray(image.resize(target[::-1], Image.Resampling.BILINEAR))
    times = (
        milliseconds(hand_over),
        milliseconds(lambda: resize(torch.from_numpy(frame)[None], target)),
        milliseconds(lambda: resized_by_numpy(frame, columns, rows)),
        milliseconds(lambda: image.resize(target[::-1], Image.Resampling.BILINEAR)),
    )
    cells = "".join(f"{time:>12.2f}" for time in times)
    return f"{width:>5} x {height:<5}{cells}{(by_pillow != by_torch).mean():>14.3%}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clip", nargs="?", help="video whose first frame is resized; noise without one")
    clip = parser.parse_args().clip
    torch.set_num_threads(1)
    shared = SharedFrames.create()
    if shared is None:
        raise SystemExit("This system has no memory files, through which large frames are handed over.")
    writer = SharedFrames(shared.descriptor, is_writer=True)
    print(describe_machine())
    print(f"{'ms a frame':<13}{'handed over':>12}{'PyTorch':>12}{'NumPy':>12}{'Pillow':>12}{'other values':>14}")
    for size in SIZES:
        if clip is None:
            frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        else:
            with VideoReader() as reader:
                first = reader.read(clip, [reader.probe(clip).start_seconds]).frames_thwc
            frame = resize(torch.from_numpy(first), size)[0].numpy()
        print(measure(frame, writer))
    found = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True)
    held, reserved, held_then, reserved_then, seconds = map(float, found.stdout.split())
    print(
        f"import torch: {seconds:.1f} s; memory {held:.2f} to {held_then:.2f} GiB, address space {reserved:.1f} to "
        f"{reserved_then:.1f} GiB"
    )


if __name__ == "__main__":
    main()
