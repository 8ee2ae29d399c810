"""Runs from the command line that end by SIGKILL at a chosen moment, each in a fork of a process with all imports done.

    python killed_runs.py '[{"arguments": ["train", ...], "moment": ["module:Class.method", 3]}, ...]'

prints how each ended: for each of its processes (with torchrun, for that) the exit status, or minus the number of the
signal. Nothing is computed before the forks, so they are safe; `all_imports` imports even what a run imports only when
it needs it, once for all forks. A job may have more keys:

- `processes`: that train together, as torchrun would start them. Its first one has the moment, and all are killed.
- `torchrun`: with true its agent starts them. The last one has the moment, and is killed alone.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from typing import Any

LATE_IMPORTS = (
    "lightning.fabric.strategies", "matplotlib.backends.backend_agg", "matplotlib.figure", "torch.utils.tensorboard",
    "yaml", "nonlocal_video.cli.main", "nonlocal_video.cli.train_text", "nonlocal_video.training.api",
)  # fmt: skip


def main() -> None:
    all_imports()
    ended = [_under_torchrun(job) if job.get("torchrun") else _in_forks(job) for job in json.loads(sys.argv[1])]
    print(json.dumps(ended))


def all_imports() -> None:
    """Import all that a run needs, which costs some seconds."""
    for name in LATE_IMPORTS:
        importlib.import_module(name)


def _in_forks(job: dict[str, Any]) -> list[int]:
    """Run it in forks; return the status of each process."""
    count = job.get("processes", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            if count > 1:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
                place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                os.environ |= {name: str(value) for name, value in place.items()}
            _run(job, None if rank else signal.SIGSTOP)
        children.append(child)
    ended = []
    for child in children:
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):  # at the moment
            for one in children:
                os.kill(one, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        ended.append(os.waitstatus_to_exitcode(status))
    return ended


def _under_torchrun(job: dict[str, Any]) -> list[int]:
    """Run it under torchrun's agent, here in a fork and with forks for processes; return its status."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    agent = os.fork()
    if agent == 0:
        settings: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": "killed"}
        launch = LaunchConfig(1, 1, job["processes"], max_restarts=0, start_method="fork", **settings)
        elastic_launch(launch, _as_torchrun_says)(job)
        sys.exit()
    return [os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1])]


def _as_torchrun_says(job: dict[str, Any]) -> None:
    is_last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
    _run(job, signal.SIGKILL if is_last else None)


def _run(job: dict[str, Any], at_moment: signal.Signals | None) -> None:
    """The command line in this process."""
    import nonlocal_video.cli.main as cli

    if job["moment"] and at_moment:
        place, call = job["moment"]
        _signal_in(place, call, at_moment)
    sys.argv = ["nonlocal-video", *job["arguments"]]
    try:
        cli.main()
    finally:
        sys.stdout.flush()


def _signal_in(place: str, call: int, number: signal.Signals) -> None:
    """Send this process a signal at the given call of `module:Class.method`, counted from 1."""
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
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(owner, last, counted)


if __name__ == "__main__":
    main()
