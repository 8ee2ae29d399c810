"""Two processes under torchrun reach the weights of one with the same global batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from absent import needs
from engine_parts import tiny_card, tiny_network, wake_blocks

from nonlocal_video.cli.main import main
from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint
from nonlocal_video.training.metrics import read_metrics

pytestmark = pytest.mark.slow

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nonlocal_video")

SLOW_CHECK = """
import os, socket, sys, time
from datetime import timedelta
from functools import partial

import lightning.fabric.strategies as strategies

import nonlocal_video.cli.main as cli
import nonlocal_video.training.api as api
from nonlocal_video.training.engine import TrainResult

def check_slowly(*given):
    time.sleep(4)
    return labelled(*given)

labelled, api._labelled = api._labelled, check_slowly
strategies.DDPStrategy = partial(strategies.DDPStrategy, timeout=timedelta(seconds=2))
best = {"epoch": 0, "train/loss": 0, "validation/loss": 0}
api.train_run = lambda *given, **named: TrainResult(0, best, True, False, 0.0, 0)
with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
second = os.fork() == 0
os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), "01"[second])
try:
    cli.main()
finally:
    if not second:
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the second process is a fork")
@needs(torch.distributed.is_available(), "PyTorch was built without torch.distributed")
def test_while_the_first_checks_clips_the_others_wait_longer_than_for_anything_else(
    divided_clips: Path, model: Path, tmp_path: Path
) -> None:
    command = ["train", str(divided_clips), "--model", str(model), "--device", "cpu", "--output", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", SLOW_CHECK, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "config.json").is_file()


@needs(torch.distributed.is_available(), "PyTorch was built without torch.distributed")
def test_two_processes_are_one(divided_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = tiny_card(blocks=True)
    model = tmp_path / "tiny.safetensors"
    save_checkpoint(model, wake_blocks(tiny_network(card)), card, dtype=torch.float32)
    settings = ("optimizer=sgd", "accumulate=2", "ema_decay=0.5", "workers=0", "clip_norm=1", "label_smoothing=0.1")
    command = [
        "train", str(divided_clips), "--model", str(model), "--stage", "all", "--epochs", "2", "--batch-size", "4",
        "--learning-rate", "0.02", "--device", "cpu", *(f"--set={one}" for one in settings), "--output",
    ]  # fmt: skip

    done = subprocess.run(
        [sys.executable, *TORCHRUN, *command, str(tmp_path / "two" / "run")],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Best after epoch") == 1  # one process speaks
    monkeypatch.setattr(sys, "argv", ["nonlocal-video", *command, str(tmp_path / "one" / "run")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0

    one, two = (tmp_path / name / "run" for name in ("one", "two"))
    for name in ("best.safetensors", "last.safetensors"):
        (expected, card), (found, other_card) = (load_checkpoint(run / name) for run in (one, two))
        assert other_card == card
        began = load_checkpoint(model)[0].state_dict()
        for key, tensor in expected.state_dict().items():
            torch.testing.assert_close(found.state_dict()[key], tensor, rtol=1e-3, atol=1e-5, msg=key)
        assert any(not torch.equal(tensor, began[key]) for key, tensor in expected.state_dict().items())
    rows = [read_metrics(run / "metrics.csv") for run in (one, two)]
    assert [row["step"] for row in rows[0]] == [1, 2]
    for of_one, of_two in zip(*rows, strict=True):
        assert of_two == pytest.approx(of_one, rel=1e-3, abs=1e-5)
