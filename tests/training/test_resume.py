"""A run that is killed again and again, in the middle of whatever it does, ends with the same bytes as any other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
    ("nonlocal_video.training.engine:measure", 1),
    ("nonlocal_video.training.run_folder:RunFolder.save_best", 1),  # after the row, before the state
    ("nonlocal_video.training.run_folder:_sync_folder", 2),  # right after a new state, in the second epoch
    ("nonlocal_video.training.run_folder:os.replace", 3),  # before a state that is whole takes its place
    ("nonlocal_video.training.run:_Run._describe", 1),  # after the last step
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are killed in forks")
def test_killed_at_any_moment_a_run_ends_with_the_same_bytes(divided_clips: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    begin = ["train", str(divided_clips), "--recipe", str(recipe), "--device", "cpu"]
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    resume = ["train", "--output", str(killed), "--resume"]
    jobs = [{"arguments": [*begin, "--output", str(whole)], "moment": None}]
    jobs += [
        {"arguments": resume if number else [*begin, "--output", str(killed)], "moment": moment}
        for number, moment in enumerate(MOMENTS)
    ]
    jobs.append({"arguments": [*resume, "--workers", "1"], "moment": None})
    script = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(jobs)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout.splitlines()[-1])
    assert ended == [0, *[-signal.SIGKILL] * len(MOMENTS), 0], done.stderr
    for name in ("metrics.csv", "best.safetensors", "last.safetensors", "manifest.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert len((whole / "metrics.csv").read_text().splitlines()) == 4
    assert len(json.loads((killed / "config.json").read_text())["starts"]) == 1 + len(MOMENTS)
    assert not list(killed.glob(".*.part"))
    assert not list(killed.glob(".*.tmp"))
    assert (killed / "README.md").is_file()
