"""Clips per second of training a Video3DResNet on a GPU: memory layout, compilation, kernels and precision, in one run.

    python benchmarks/train_speed.py --output benchmarks/results/train_speed.json

A step is forward, backward and AdamW on random clips that are on the GPU already: loading is not part of it. Every
variant is timed in turn, several rounds long, and the median round counts. "naive" is the kernel that holds the N x M
matrix (`nonlocal_video.blocks.reference`) in the place of the fused one. The last table is the default's inference:
views per second by batch size, which says whether it pays to let visitors of the page share a forward pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.blocks import nonlocal_block
from nonlocal_video.blocks.reference import softmax_reference
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.models.folding import fold_batch_norms
from nonlocal_video.models.resnet3d import Video3DResNet

ROUNDS, STEPS = 5, 8
FUSED = nonlocal_block.softmax_kernel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--weights", type=Path, default=Path("weights/i3d-nl-k400.safetensors"))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--compile", action="store_true", help="Time torch.compile, too (a minute each).")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    found: dict[str, Any] = {"machine": describe_machine(), "device": name_of(device), "training": [], "inference": []}

    cases: list[dict[str, Any]] = [
        {"layout": "contiguous", "precision": "float32"},
        {"layout": "contiguous", "precision": "bfloat16"},
        {"layout": "channels_last_3d", "precision": "bfloat16"},
    ]
    if arguments.compile:
        cases += [
            {"layout": layout, "precision": "bfloat16", "compile": True}
            for layout in ("contiguous", "channels_last_3d")
        ]
    settings = [
        {"frames": 16, "size": 112, "stages": (3, 4), "batch": arguments.batch_size},
        {"frames": 32, "size": 224, "stages": (2, 3, 4), "batch": max(1, arguments.batch_size // 8)},
    ]
    for setting in settings:
        for case in [*cases, {**cases[2], "kernel": "naive"}]:
            if case.get("compile") and setting is not settings[0]:
                continue
            row = {**setting, "kernel": "fused", "compile": False, **case}
            row |= time_training(row, device)
            torch.compiler.reset()
            found["training"].append(row)
            print(row, flush=True)
            arguments.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")

    network = (
        fold_batch_norms(load_checkpoint(arguments.weights)[0]).to(device).to(memory_format=torch.channels_last_3d)
    )
    for frames, precision in ((64, "float32"), (64, "bfloat16"), (32, "float32")):
        for batch in (1, 2, 4, 8):
            rate = time_inference(network, batch, frames, precision, device)
            row = {"batch": batch, "frames": frames, "size": 224, "precision": precision, "views_per_second": rate}
            found["inference"].append(row)
            print(row, flush=True)
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def time_training(row: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Clips per second (median of the rounds) and the peak of allocated memory."""
    torch.manual_seed(0)
    nonlocal_block.softmax_kernel = naive if row["kernel"] == "naive" else FUSED
    network: nn.Module = Video3DResNet(400, row["stages"]).to(device)
    clips = torch.randn(row["batch"], 3, row["frames"], row["size"], row["size"], device=device)
    if row["layout"] == "channels_last_3d":
        network = network.to(memory_format=torch.channels_last_3d)
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
    if row["compile"]:
        network = torch.compile(network)  # type: ignore[assignment]
    classes = torch.randint(400, (row["batch"],), device=device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=row["precision"] == "bfloat16")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = nn.functional.cross_entropy(network(clips), classes)
        loss.backward()
        optimizer.step()

    torch.cuda.empty_cache()  # of the case before
    torch.cuda.reset_peak_memory_stats()
    try:
        rate = row["batch"] * per_second(step)
    except torch.OutOfMemoryError:
        return {"clips_per_second": None, "peak_gib": None}
    finally:
        nonlocal_block.softmax_kernel = FUSED
    peak = torch.cuda.max_memory_allocated() / 2**30
    return {"clips_per_second": round(rate, 1), "peak_gib": round(peak, 2)}


def naive(theta: Tensor, phi: Tensor, g: Tensor, *, scale: float = 1.0) -> Tensor:
    return softmax_reference(theta, phi, g, scale=scale)


@torch.inference_mode()
def time_inference(network: nn.Module, batch: int, frames: int, precision: str, device: torch.device) -> float:
    clips = torch.randn(batch, 3, frames, 224, 224, device=device).contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return round(batch * per_second(lambda: network(clips)), 1)


def per_second(call: Callable[[], object]) -> float:
    for _ in range(3):
        call()
    rates = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(STEPS):
            call()
        torch.cuda.synchronize()
        rates.append(STEPS / (time.perf_counter() - started))
    return statistics.median(rates)


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


if __name__ == "__main__":
    main()
