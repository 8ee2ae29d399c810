"""Runs from the command line that are sent signals, each in a fork of a process with all imports done.

    python stopped_runs.py '[{"arguments": ["train", ...], "wait_for": "run/state.pt", "signals": [15], "to": "group"}]'

sends the signals as soon as the file that is waited for is new or another, and prints for each how it ended (the exit
status, or minus the number of the signal), what it wrote, and whether one of its processes was left.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from killed_runs import all_imports

SECONDS = 120.0


def main() -> None:
    all_imports()
    print(json.dumps([_ended(job) for job in json.loads(sys.argv[1])]))


def _ended(job: dict[str, Any]) -> dict[str, Any]:
    awaited = Path(job["wait_for"])
    before = _changed(awaited)
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            _run(job["arguments"])
        deadline = time.monotonic() + SECONDS
        if job["signals"]:
            while _changed(awaited) == before and time.monotonic() < deadline:
                time.sleep(0.02)
        for number in job["signals"]:
            targets = {"group": [-child], "all": [child, *_children(child)], "one": [child]}[job["to"]]
            for target in targets:
                _send(target, number)
            time.sleep(job.get("pause", 0.05))
        ended = 0
        while not ended:
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended and time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.02)
        left = _is_left(child, time.monotonic() + 10)
        said.seek(0)
        return {"status": os.waitstatus_to_exitcode(status), "said": said.read().decode(), "left": left}


def _run(arguments: list[str]) -> None:
    import nonlocal_video.cli.main as cli

    sys.argv = ["nonlocal-video", *arguments]
    try:
        cli.main()
    finally:
        sys.stdout.flush()


def _changed(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _children(parent: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _send(target: int, number: int) -> None:
    try:
        os.kill(target, number)
    except ProcessLookupError:
        return


def _is_left(group: int, deadline: float) -> bool:
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


if __name__ == "__main__":
    main()
