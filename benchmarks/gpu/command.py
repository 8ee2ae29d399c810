"""The command line in a fork: started in no time, ended by a signal or killed, with what it printed."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu.harness import CheckFailedError


@dataclass(frozen=True)
class Ended:
    """Result of a command: its status, minus the number of the signal where one ended it, and what it printed."""

    status: int
    printed: str


def run_command(
    arguments: Sequence[object],
    *,
    first: Callable[[], None] = lambda: None,
    stop_at: Path | None = None,
    seconds: float = 120.0,
) -> Ended:
    """Run `nonlocal-video ARGUMENTS` in a fork of this process, which must not have used a GPU.

    Args:
        arguments: Words of the command.
        first: Called in the fork before the command.
        stop_at: File at whose appearance the command gets SIGTERM.
        seconds: After which the command is killed.

    Raises:
        CheckFailedError: It took too long, or ended before it could be stopped.
    """
    words = [str(word) for word in arguments]
    print("$ nonlocal-video", *words, flush=True)
    with tempfile.TemporaryFile() as printed:
        child = os.fork()
        if child == 0:
            _child(words, first, printed.fileno())
        deadline, status, asked = time.monotonic() + seconds, None, False
        while status is None:
            ended, found = os.waitpid(child, os.WNOHANG)
            if ended:
                status = os.waitstatus_to_exitcode(found)
            elif time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            elif stop_at is not None and not asked and stop_at.exists():
                os.kill(child, signal.SIGTERM)
                asked = True
            time.sleep(0.005)
        printed.seek(0)
        text = printed.read().decode(errors="replace")
    print(text, flush=True)
    command = f"`nonlocal-video {' '.join(words[:2])} ...`"
    if status is None:
        raise CheckFailedError(f"{command} took more than {seconds:g} s.\n{text[-2000:]}")
    if stop_at is not None and not asked:
        raise CheckFailedError(f"{command} ended with status {status} before it could be stopped.\n{text[-2000:]}")
    return Ended(status, text)


def in_fork(work: Callable[[], object]) -> None:
    """Do something in a fork: a process that has computed with several threads of OpenMP cannot be forked any more.

    Raises:
        CheckFailedError: It ended with an error, which it printed.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        raise CheckFailedError("What a check needs could not be made; log.txt says why.")


def _child(words: list[str], first: Callable[[], None], output: int) -> None:
    """Run the command and end this process."""
    status = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.argv = ["nonlocal-video", *words]
        first()
        from nonlocal_video.cli.main import main

        main()
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
