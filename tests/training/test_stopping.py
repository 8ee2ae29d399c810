"""Ctrl-C and SIGTERM end a run with its checkpoint kept, status 130 and no traceback, of no process of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_resume import RECIPE

pytestmark = pytest.mark.slow

TERM, INT = int(signal.SIGTERM), int(signal.SIGINT)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and /proc")
def test_a_run_that_is_told_to_stop_stops_and_goes_on(divided_clips: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    begin = [
        "train",
        str(divided_clips),
        "--recipe",
        str(recipe),
        "--device",
        "cpu",
        "--workers",
        "2",
        "--epochs",
        "400",
    ]
    ways: dict[str, tuple[list[int], str]] = {
        "SIGTERM to all of its processes": ([TERM], "all"),
        "SIGTERM to its group": ([TERM], "group"),
        "SIGTERM five times": ([TERM] * 5, "all"),
        "Ctrl-C, then SIGTERM": ([INT, TERM], "group"),
    }
    jobs: list[dict[str, Any]] = []
    for name, (signals, to) in ways.items():
        run = tmp_path / name
        state = str(run / "state.pt")
        jobs.append({"arguments": [*begin, "--output", str(run)], "wait_for": state, "signals": signals, "to": to})
    again = tmp_path / "SIGTERM to its group"
    state = str(again / "state.pt")
    jobs.append(
        {
            "arguments": ["train", "--output", str(again), "--resume"],
            "wait_for": state,
            "signals": [TERM],
            "to": "group",
        }
    )
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("stopped_runs.py")), json.dumps(jobs)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, job, ended in zip([*ways, "resumed"], jobs, json.loads(done.stdout), strict=True):
        words = f"{name}: {ended['said']}"
        assert ended["status"] == 130, words
        assert "Traceback" not in ended["said"], words
        assert "Exception" not in ended["said"], words
        assert not ended["left"], words
        if len(job["signals"]) == 1:
            assert ended["said"].count("Finishing the current step") == 1, words
        assert ended["said"].rstrip().splitlines()[-1].split(".")[0].startswith("Stopped"), words
        assert "`train --resume` with this --output continues" in ended["said"], words
        assert (Path(job["wait_for"]).parent / "state.pt").is_file()
    starts = json.loads((again / "config.json").read_text())["starts"]
    assert len(starts) == 2
