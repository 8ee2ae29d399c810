"""Measure training without a GPU, and the share of decoding in loading, without and with the cache.

    python benchmarks/train_loading.py CLIPS.csv --output benchmarks/results/train_loading.json

Two epochs of random views (16 frames of 112 pixels) in one process: in the first every clip is decoded and put into the
cache, the second reads it. Then training steps of a small Video3DResNet on those views, loaded by two workers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from actions import INPUT, STUDENTS, divide, fit

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.datasets.manifest import Manifest
from nonlocal_video.training.augment import Augmentation
from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.training.disk_cache import DiskCache
from nonlocal_video.training.initialization import NewModel
from nonlocal_video.training.run import RunData, RunSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3, help="Of training.")
    arguments = parser.parse_args()
    manifest = divide(arguments.clips, 4, 0)
    with tempfile.TemporaryDirectory(prefix="loading-") as folder:
        found: dict[str, Any] = {
            "machine": describe_machine(),
            "clips": len(manifest.usable),
            "loading": load_twice(manifest, Path(folder)),
        }
        config = TrainConfig(stage="all", epochs=arguments.epochs, batch_norm="batch")
        model = NewModel("student", "resnet3d", INPUT, STUDENTS["slim18"])
        split = Manifest(
            tuple(replace(row, split="validation" if row.split == "fold1" else "train") for row in manifest.usable)
        )
        settings = RunSettings(model, config, device="cpu")
        found["training"] = fit(Path(folder) / "run", settings, RunData(split), Path(folder))
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(json.dumps(found, indent=1))


def load_twice(manifest: Manifest, folder: Path) -> dict[str, Any]:
    """Clips per second of one process, and the share of its time that went into decoding and the cache."""
    cache = DiskCache(folder / "cache")
    found = {}
    for epoch, name in enumerate(("decoded", "cached")):
        data = ClipDataset(manifest.usable, manifest.labels, INPUT, augmentation=Augmentation(), cache=cache)
        started = time.perf_counter()
        for place in range(len(data)):
            data.view(place, epoch)
        seconds = time.perf_counter() - started
        statistics = data.statistics
        data.close()
        found[name] = {
            "clips_per_second": round(len(data) / seconds, 2),
            "decode_share": round(statistics.decode_share, 4),
            "from_cache": statistics.from_cache,
        }
    return found


if __name__ == "__main__":
    main()
