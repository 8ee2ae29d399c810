"""The second Ctrl-C or SIGTERM is not lost where Python drops exceptions."""

from __future__ import annotations

import os
import signal
import sys
import time

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
