"""Runs from the command line that end by SIGKILL at a chosen moment, each in a fork of a process with all imports done.

    python killed_runs.py '[{"arguments": ["train", ...], "moment": ["module:Class.method", 3]}, ...]'

prints how each ended: 0, or minus the number of its signal. Nothing is computed before the forks, so they are safe.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import Any


def kill_in(place: str, call: int) -> None:
    """End this process as soon as `module:Class.method` is called for the so manieth time."""
    module, _, name = place.partition(":")
    *owners, last = name.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, last, counted)


def main() -> None:
    import nonlocal_video.cli.main as cli
    import nonlocal_video.training.run  # noqa: F401

    ended = []
    for job in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            if job["moment"]:
                kill_in(*job["moment"])
            sys.argv = ["nonlocal-video", *job["arguments"]]
            try:
                cli.main()
            finally:
                sys.stdout.flush()
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
