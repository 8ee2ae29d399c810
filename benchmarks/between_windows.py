"""Can a block between windows of a video learn a relation across 10 seconds? A generated task, trained from scratch.

    python benchmarks/between_windows.py --output benchmarks/results/between_windows.json

A video is eight windows, a window every 1.28 s as in `timeline`, each of 4 frames of 16 x 16 pixels with noise. Two of
them, at least five windows (6.4 s) apart, show a target square, red or green; every other shows a blue one. The class
is whether the two targets have the same colour, and every scene comes in all four colourings. So a sum over windows, of
anything that sees a window alone cannot get below a cross-entropy of log 2 (docs/long_range.md has the proof).

One small network reads each window; its pooled features pass a block between windows and are averaged before the linear
head. All blocks have the same parameters and initial values; only what a window sees differs: itself (`self`), the mean
of all windows (`mean`), or all by their similarity. Steps, batches, optimiser and learning rate are the same, too.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parent))

from long_range import interval

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.blocks import NonLocalBlock
from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet

Variant = Literal["self", "mean", "embedded_gaussian", "dot_product"]
NUM_WINDOWS, NUM_FRAMES, SIDE = 8, 4, 16
APART = 5
HALF_SIDE, NOISE = 2, 0.15
COLOURS = torch.tensor([[1.0, 0.2, 0.2], [0.2, 1.0, 0.2], [0.2, 0.5, 1.0]])  # two of targets, one of the others
COLOURINGS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
NUM_STEPS, BATCH_SIZE, LEARNING_RATE, NUM_TEST_VIDEOS = 400, 32, 3e-3, 960
SEEDS = (11, 12, 13, 14, 15)


def draw_videos(count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return videos (B, W, 3, T, S, S), four in a row of each scene, and their classes (B,)."""
    scenes = count // len(COLOURINGS)
    first = random.integers(0, NUM_WINDOWS - APART, scenes)
    second = random.integers(first + APART, NUM_WINDOWS)
    swapped = random.integers(0, 2, scenes) == 1
    first, second = np.where(swapped, second, first), np.where(swapped, first, second)
    centre = random.integers(HALF_SIDE, SIDE - HALF_SIDE, (scenes, NUM_WINDOWS, 2))
    noise = NOISE * (2 * random.random((scenes, NUM_WINDOWS, 3, NUM_FRAMES, SIDE, SIDE), dtype=np.float32) - 1)
    colours = np.full((scenes, len(COLOURINGS), NUM_WINDOWS), 2)
    each = np.arange(scenes)
    colours[each, :, first], colours[each, :, second] = COLOURINGS[:, 0], COLOURINGS[:, 1]
    rows = torch.arange(SIDE)
    inside = [
        (rows - torch.from_numpy(centre[..., axis, None])).abs() <= HALF_SIDE  # (scenes, W, S)
        for axis in (0, 1)
    ]
    square = (inside[0][..., :, None] & inside[1][..., None, :]).float()[:, None, :, None, None]
    shown = COLOURS[torch.from_numpy(colours)][..., None, None, None] * square
    videos = (shown + torch.from_numpy(noise)[:, None]).flatten(0, 1)
    labels = torch.from_numpy((COLOURINGS[:, 0] == COLOURINGS[:, 1]).astype(np.int64)).repeat(scenes)
    return videos, labels


class BetweenWindows(nn.Module):
    """A trunk for each window, a block between windows, their mean, a linear head; (B, W, 3, T, S, S) to (B, 2)."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.trunk = Video3DResNet.from_config(
            ResNet3DConfig(
                num_classes=2, block="bottleneck", blocks_per_stage=(1, 1, 1, 1), width=6, stem_kernel=(3, 5, 5),
                stem_stride=(2, 2, 2), stem_pool=None, temporal_kernels=((1,), (1,), (1,), (1,)),
            )
        )  # fmt: skip
        channels = self.trunk.fc.in_features
        attention = variant if variant == "dot_product" else "embedded_gaussian"
        self.block = NonLocalBlock(channels, dimension=1, sub_sample=False, nonlocal_type=attention)
        self.classifier = nn.Linear(channels, 2)

    def forward(self, videos: Tensor) -> Tensor:
        windows = self.trunk.extract_features(videos.flatten(0, 1), ["stage4"])["stage4"].mean(dim=(2, 3, 4))
        features = windows.unflatten(0, videos.shape[:2]).transpose(1, 2)  # (B, C, W)
        if self.variant in ("self", "mean"):
            values = self.block.g(features)
            if self.variant == "mean":
                values = values.mean(dim=2, keepdim=True).expand_as(values)
            features = features + self.block.bn(self.block.W(values))
        else:
            features = self.block(features)
        logits: Tensor = self.classifier(features.mean(dim=2))
        return logits


def train_and_test(variant: Variant, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    network = BetweenWindows(variant)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 50, 1) * (1 + math.cos(math.pi * step / NUM_STEPS)) / 2
    )
    training, testing = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    started = time.perf_counter()
    network.train()
    for _ in range(NUM_STEPS):
        videos, labels = draw_videos(BATCH_SIZE, training)
        optimizer.zero_grad()
        F.cross_entropy(network(videos), labels).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    right, losses = [], []
    with torch.inference_mode():
        for _ in range(NUM_TEST_VIDEOS // 96):
            videos, labels = draw_videos(96, testing)
            logits = network(videos)
            right.append(float((logits.argmax(1) == labels).float().mean()))
            losses.append(float(F.cross_entropy(logits, labels)))
    return {
        "variant": variant,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "accuracy": round(statistics.fmean(right), 4),
        "cross_entropy": round(statistics.fmean(losses), 4),
    }


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and half the 95% interval (Student's t) over the seeds."""
    return {
        variant: {
            name: [round(value, 4) for value in interval([run[name] for run in runs if run["variant"] == variant])]
            for name in ("accuracy", "cross_entropy")
        }
        for variant in get_args(Variant)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for variant in get_args(Variant):
        for seed in SEEDS:
            runs.append(train_and_test(variant, seed))
            print(runs[-1], flush=True)
    result = {
        "machine": describe_machine(),
        "settings": {"steps": NUM_STEPS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE},
        "summary": summary(runs),
        "runs": runs,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
