"""Runs that end before their time: a device that dies, and a training run that is told to stop."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from gpu.clips import small_model, write_clips
from gpu.command import Ended, in_fork, run_command
from gpu.harness import Context, require
from nonlocal_video.inference.runtimes.runner import NetworkRunner

STATUS_DEVICE_FAILED, STATUS_INTERRUPTED = 3, 130
SCORES = 1e-4
_DIES_AT = 3
"""The forward pass in which the device dies."""


def dead_context(context: Context) -> None:
    """Let an assert in a kernel kill the context in a folder run: status 3, no error rows; --resume does the rest."""
    clips = context.folder / "clips"
    names = [f"{number}.mp4" for number in range(6)]
    write_clips(clips, names, seconds=3.0, width=96, height=72, frames=context.frames)
    table = context.folder / "table.jsonl"
    command = ["classify", clips, "--model", context.model, "--device", context.device]
    command += ["--workers", 1, "--batch-size", 1, "--output", table]
    died = run_command(command, first=_die_in_a_kernel)
    context.note(status=died.status, said=_lines_with(died, "failed"))
    require(died.status == STATUS_DEVICE_FAILED, f"The run ended with status {died.status}, not 3.")
    require("--resume" in died.printed, "It does not name --resume.")
    require("Traceback" not in died.printed, "It printed a traceback.")

    resumed = run_command([*command, "--resume"])
    rows = _rows(table)
    counted = re.search(r"(\d+) files: .*\((\d+) of them done before\)", resumed.printed)
    context.note(
        resumed_status=resumed.status, rows=len(rows), done_before=None if counted is None else int(counted[2])
    )
    require(resumed.status == 0, f"The resumed run ended with status {resumed.status}.")
    require(counted is not None and 0 < int(counted[2]) < _DIES_AT, "It did not go on after what was answered.")
    require(sorted(Path(row["path"]).name for row in rows) == names, "After resuming not every clip has one row.")
    require(all(row["status"] == "ok" for row in rows), "After resuming some rows have errors.")

    undisturbed = context.folder / "undisturbed.jsonl"
    run_command([*command[:-1], undisturbed])
    difference = _largest_difference(rows, _rows(undisturbed))
    context.note(difference=difference)
    require(difference <= SCORES, f"Scores differ by {difference:.1e} from those of a run that was not disturbed.")


def training(context: Context) -> None:
    """Stop training in bfloat16 by SIGTERM and resume it: the weights have the bits of a run that was not stopped."""
    import nonlocal_video.training.run  # noqa: F401  # once for the three commands

    clips = context.folder / "clips"
    names = [f"{label}/{number}.mp4" for number in range(6) for label in ("rise", "wave")]
    write_clips(clips, names, seconds=2.0, width=96, height=72, frames=context.frames)
    # PyTorch refuses the first on CPUs.
    precision = "32-true" if context.miniature else "bf16-mixed"
    context.note(precision=precision)
    settings = [f"precision={precision}", "deterministic=true", "save_every_steps=1", "cache_gib=1"]
    model = context.folder / "model.safetensors"
    size = {} if context.miniature else {"width": 32, "num_frames": 16, "crop": 112}
    in_fork(lambda: small_model(model, **size))
    begin = [
        "train", clips, "--model", model, "--device", context.device, "--stage", "all", "--epochs", 2,
        "--batch-size", 4, "--workers", 2 if context.frames == "videos" else 0,
    ]  # fmt: skip
    for setting in settings:
        begin += ["--set", setting]
    whole, stopped = context.folder / "whole", context.folder / "stopped"
    done = run_command([*begin, "--output", whole])
    require(done.status == 0, f"The run ended with status {done.status}:\n{done.printed[-2000:]}")
    told = run_command([*begin, "--output", stopped], stop_at=stopped / "state.pt")
    context.note(stopped_status=told.status)
    require(told.status == STATUS_INTERRUPTED, f"After SIGTERM it ended with status {told.status}, not 130.")
    resumed = run_command(["train", "--output", stopped, "--resume"])
    require(resumed.status == 0, f"The resumed run ended with status {resumed.status}:\n{resumed.printed[-2000:]}")
    digests = [weights_digest(folder / "last.safetensors") for folder in (whole, stopped)]
    context.note(weights_sha256=digests)
    require(digests[0] == digests[1], "The resumed run's weights have other bits than those of the run not stopped.")
    before = load_file(str(whole / "last.safetensors"))
    require(all(torch.isfinite(value).all() for value in before.values()), "Weights are not finite.")


def weights_digest(path: Path) -> str:
    """Return a digest of names, types, shapes and bits of all tensors, whatever the file says besides."""
    digest = hashlib.sha256()
    for name, value in sorted(load_file(str(path)).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _die_in_a_kernel() -> None:
    """Let a kernel of this process fail an assert in its third forward pass, after which CUDA refuses everything."""
    run_network = NetworkRunner.__call__
    calls = 0

    def dying(self: NetworkRunner, inputs: torch.Tensor, *given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= _DIES_AT:
            if inputs.device.type != "cuda":  # in miniature: what CUDA would raise
                raise torch.AcceleratorError("CUDA error: device-side assert triggered")
            outside = torch.full((1,), 1000, device=inputs.device)
            inputs.flatten()[:8].index_select(0, outside)
            torch.cuda.synchronize()
        return run_network(self, inputs, *given, **options)

    NetworkRunner.__call__ = dying  # type: ignore[method-assign]


def _rows(table: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []


def _largest_difference(rows: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> float:
    """Return the largest difference between the best scores of two tables; infinite if they are of other classes."""
    scores = [
        {(row["path"], one["label"]): one["score"] for row in table for one in row["top"][:1]}
        for table in (rows, wanted)
    ]
    if scores[0].keys() != scores[1].keys():
        return float("inf")
    return max(abs(scores[0][key] - scores[1][key]) for key in scores[1])


def _lines_with(ended: Ended, word: str) -> list[str]:
    return [line for line in ended.printed.splitlines() if word in line]
