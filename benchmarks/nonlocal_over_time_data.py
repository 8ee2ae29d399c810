"""Windows of clips for the study of the non-local operation over time: logits and pooled features, kept on disk.

    python benchmarks/nonlocal_over_time_data.py CLIPS... --cache FOLDER [--fast]

Each clip becomes one .npz file in the cache, named by the digest of the clip and of how it was looked at, so that only
what is new is computed. The files are not committed: they take minutes to make and depend on the weights alone.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import nonlocal_video as nlv
from nonlocal_video.inference.files import find_files

STRIDE_SECONDS = 1.28


@dataclass(frozen=True)
class ClipWindows:
    """The W windows of a clip.

    Attributes:
        path: The clip, below the folder that was searched.
        label: Its folder's name as a label of the model.
        logits: (W, classes).
        features: (W, C) pooled features.
        starts: (W,) seconds.
        ends: (W,) seconds.
        forward_seconds: What the windows' forward passes took together.
    """

    path: str
    label: str
    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    forward_seconds: float

    def __len__(self) -> int:
        return len(self.logits)


def windows_of(
    folders: Iterable[Path], cache: Path, *, fast: bool = False, stride_seconds: float = STRIDE_SECONDS
) -> Iterator[ClipWindows]:
    """The windows of every clip below some folders, computed where the cache lacks them."""
    cache.mkdir(parents=True, exist_ok=True)
    recognizer: nlv.Recognizer | None = None
    try:
        for folder in folders:
            for path in find_files([folder]):
                kept = cache / f"{_key(Path(path), fast, stride_seconds)}.npz"
                if not kept.exists():
                    recognizer = recognizer or nlv.load("default", device="cpu", runtime="openvino")
                    timeline = recognizer.timeline(path, fast=fast, stride_seconds=stride_seconds, batch_size=1)
                    assert timeline.logits is not None
                    assert timeline.features is not None
                    part = kept.with_suffix(".part.npz")
                    np.savez(
                        part,
                        logits=timeline.logits,
                        features=timeline.features,
                        starts=timeline.starts,
                        ends=timeline.ends,
                        forward=timeline.timings.forward,
                    )
                    os.replace(part, kept)
                with np.load(kept) as found:
                    yield ClipWindows(
                        path=os.path.relpath(path, folder.parent),
                        label=Path(path).parent.name.replace("_", " "),
                        logits=found["logits"],
                        features=found["features"],
                        starts=found["starts"],
                        ends=found["ends"],
                        forward_seconds=float(found["forward"]),
                    )
    finally:
        if recognizer is not None:
            recognizer.close()


def _key(path: Path, fast: bool, stride_seconds: float) -> str:
    digest = hashlib.sha256(path.read_bytes())
    digest.update(f"{'fast' if fast else 'default'} {stride_seconds:.6f}".encode())
    return digest.hexdigest()[:24]


def main() -> None:
    """Fill the cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--fast", action="store_true")
    options = parser.parse_args()
    started = time.perf_counter()
    for number, clip in enumerate(windows_of(options.folders, options.cache, fast=options.fast), start=1):
        print(f"{number} {clip.path}: {len(clip)} windows, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
