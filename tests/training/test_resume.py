"""A run that is killed again and again, in the middle of whatever it does, ends with the same bytes as any other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from absent import needs
from torch.nn import functional as F

from nonlocal_video.datasets.manifest import read_manifest
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.training.metrics import read_metrics

pytestmark = pytest.mark.slow

RECIPE = """\
model:
  name: slim
  architecture: resnet3d
  config:
    width: 8
    blocks_per_stage: [1, 1, 1, 1]
    dropout: 0.3
    nonlocal_blocks: {layer3.0: {inter_channels: 4}, layer4.0: {inter_channels: 4}}
  input: {num_frames: 8, frames_per_second: 10, short_side: 48, crop: 40, mean: [0.4, 0.4, 0.4], std: [0.2, 0.2, 0.2]}
stage: all
epochs: 3
batch_size: 2
accumulate: 2
learning_rate: 0.003
ema_decay: 0.8
label_smoothing: 0.1
progressive: {warmup_epochs: 0.5, ramp_epochs: 1, stages: [4, 3]}
save_every_steps: 1
workers: 0
"""
MOMENTS = [
    ("torch.optim:AdamW.step", 1),  # before there is a state: the run begins anew
    ("torch.optim:AdamW.step", 2),  # in the middle of an epoch; so far one step is saved
    ("nonlocal_video.training.engine:validate", 1),
    ("nonlocal_video.training.run_folder:RunFolder.save_best", 1),  # after the row, before the state
    ("nonlocal_video.training.run_folder:RunFolder._write", 3),  # after a new state, in the second epoch
    ("nonlocal_video.io:os.replace", 3),  # before a state that is whole takes its place
    ("nonlocal_video.training.run:_Run._describe", 1),  # after the last step
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are killed in forks")
def test_killed_at_any_moment_a_run_ends_with_the_same_bytes(divided_clips: Path, tmp_path: Path) -> None:
    begin = _begin(divided_clips, tmp_path)
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    resume = ["train", "--output", str(killed), "--resume"]
    jobs: list[dict[str, Any]] = [{"arguments": [*begin, "--output", str(whole)], "moment": None}]
    jobs += [
        {"arguments": resume if number else [*begin, "--output", str(killed)], "moment": moment}
        for number, moment in enumerate(MOMENTS)
    ]
    jobs.append({"arguments": [*resume, "--workers", "1"], "moment": None})
    assert _ended(jobs) == [[0], *[[-signal.SIGKILL]] * len(MOMENTS), [0]]
    _assert_same_bytes(killed, whole)
    assert len((whole / "metrics.csv").read_text().splitlines()) == 4
    assert len(json.loads((killed / "config.json").read_text())["starts"]) == 1 + len(MOMENTS)
    assert (killed / "README.md").is_file()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are killed in forks")
@needs(torch.distributed.is_available(), "PyTorch was built without torch.distributed")
def test_two_processes_both_killed_or_one_end_with_the_same_bytes(divided_clips: Path, tmp_path: Path) -> None:
    begin = [*_begin(divided_clips, tmp_path), "--epochs", "2"]
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    resume = ["train", "--output", str(killed), "--resume"]
    second_step = ("torch.optim:AdamW.step", 2)  # of this start; the step before it is saved
    epoch_saved = ("nonlocal_video.training.run_folder:RunFolder._write", 3)
    jobs: list[dict[str, Any]] = [
        {"arguments": [*begin, "--output", str(whole)], "moment": None},
        {"arguments": [*begin, "--output", str(killed), "--set", "accumulate=9"], "moment": None},  # has too few clips
        {"arguments": [*begin, "--output", str(killed)], "moment": second_step},
        {"arguments": resume, "moment": epoch_saved},
        {"arguments": resume, "moment": second_step, "torchrun": True},  # one is killed, and the other does not wait
        {"arguments": resume, "moment": None},
    ]
    both_killed = [-signal.SIGKILL] * 2
    ended = _ended([{**job, "processes": 2} for job in jobs])
    assert ended == [[0, 0], [2, 2], both_killed, both_killed, [1], [0, 0]]
    _assert_same_bytes(killed, whole)
    rows = read_metrics(whole / "metrics.csv")
    assert [row["step"] for row in rows] == [2, 4]
    # Batch norms of the two processes saw other clips; what was measured is what was saved.
    assert rows[-1]["validation/loss"] == pytest.approx(_held_out_loss(whole), rel=1e-5)


def _held_out_loss(run: Path) -> float:
    """Return the validation loss of the last weights, computed by themselves."""
    network, card = load_checkpoint(run / "last.safetensors")
    clips = ClipDataset(read_manifest(run / "manifest.csv").of_split("validation"), card.labels, card.input)
    views, classes = zip(*(clips.view(index, 0) for index in range(len(clips))), strict=True)
    clips.close()
    with torch.no_grad():
        logits = network.eval()(torch.stack(views))
    return F.cross_entropy(logits, torch.tensor(classes), label_smoothing=0.1).item()


def _begin(clips: Path, folder: Path) -> list[str]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    return ["train", str(clips), "--recipe", str(recipe), "--device", "cpu"]


def _ended(jobs: list[dict[str, Any]]) -> list[list[int]]:
    """Return the status of each run's processes, see `killed_runs.py`."""
    script = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(jobs)],
        capture_output=True,
        text=True,
        timeout=480,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    print(done.stderr)  # shown if the test fails
    ended: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return ended


def _assert_same_bytes(killed: Path, whole: Path) -> None:
    for name in ("metrics.csv", "best.safetensors", "last.safetensors", "manifest.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list(killed.glob(".*.part"))
    assert not list(killed.glob(".*.tmp"))
