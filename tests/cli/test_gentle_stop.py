"""The second Ctrl-C or SIGTERM is not lost where Python drops exceptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nonlocal_video.cli.interrupt import GracefulInterrupt

pytestmark = pytest.mark.slow


class SignalledWhenDestroyed:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


class FailsWhenDestroyed:
    def __del__(self) -> None:
        raise RuntimeError("a worker was killed")


@pytest.fixture(autouse=True)
def _signals_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)


def _run_that_is_signalled_twice() -> None:
    with GracefulInterrupt() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        SignalledWhenDestroyed()
        time.sleep(5)


def test_a_second_signal_in_a_destructor_still_interrupts_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt):
            _run_that_is_signalled_twice()
        FailsWhenDestroyed()
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    assert capfd.readouterr().err == "Finishing the current step; once more stops at once.\n"


def test_errors_in_destructors_are_shown_until_then(capfd: pytest.CaptureFixture[str]) -> None:
    with GracefulInterrupt():
        FailsWhenDestroyed()
    assert "a worker was killed" in capfd.readouterr().err


def test_a_signal_while_python_ends_keeps_the_status(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, sys\n"
        "from nonlocal_video.cli.interrupt import STATUS_INTERRUPTED, GracefulInterrupt\n"
        "class Signals:\n"
        "    def __del__(self, kill=os.kill, here=os.getpid(), number=signal.SIGTERM):\n"
        "        kill(here, number)\n"
        "kept = Signals()\n"
        "with GracefulInterrupt():\n"
        "    if len(sys.argv) > 1:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(STATUS_INTERRUPTED)\n"
    )
    run = subprocess.run([sys.executable, program, "stopped"], capture_output=True, check=False)
    assert run.returncode == 130, run.stderr
    # Without a stop, a signal has its own effect.
    assert subprocess.run([sys.executable, program], capture_output=True, check=False).returncode == -signal.SIGTERM
