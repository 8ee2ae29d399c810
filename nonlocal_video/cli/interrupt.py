"""Graceful handling of Ctrl-C and SIGTERM."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import typer

from nonlocal_video.cli.terminal import STATUS_INTERRUPTED

CLEANUP_SECONDS = 10.0


class GracefulInterrupt:
    """Lets the current work finish after the first Ctrl-C or SIGTERM; the second stops at once. A context manager.

    Further signals are ignored during cleanup, for at most `CLEANUP_SECONDS`. After a block that a signal ended,
    another signal ends the process at once, without cleanup. Forked processes ignore the signals.

    Attributes:
        requested: Whether a stop was requested.
    """

    def __init__(self) -> None:
        self.requested = False
        self._stopped: float | None = None
        self._process = os.getpid()
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> GracefulInterrupt:
        if threading.current_thread() is threading.main_thread():  # Python sets handlers in no other thread
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, _exit_now if self.requested else handler)
        self._earlier = {}

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if self._stopped is not None and time.monotonic() - self._stopped > CLEANUP_SECONDS:
            os._exit(STATUS_INTERRUPTED)
        if self._stopped is not None:
            return
        if self.requested:
            self._stopped = time.monotonic()
            sys.unraisablehook = self._while_stopping
            raise KeyboardInterrupt
        self.requested = True
        typer.echo("Finishing the current step; once more stops at once.", err=True)

    def _while_stopping(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Hide errors that Python cannot raise, and interrupt again if one of them was the interrupt.

        A signal may arrive in a destructor, where Python drops any exception of its handler. Objects that are torn down
        at once, such as a loader whose workers are gone, may also raise in their destructor.
        """
        if isinstance(unraisable.exc_value, KeyboardInterrupt) and self._earlier:
            threading.Timer(0.01, self._interrupt_again).start()

    def _interrupt_again(self) -> None:
        self._stopped = None
        os.kill(self._process, signal.SIGINT)


def _exit_now(_number: int, _frame: FrameType | None) -> None:
    os._exit(STATUS_INTERRUPTED)


@atexit.register
def _ignore_while_python_ends() -> None:
    """Ignore further signals: Python restores their default actions, by which its exit status would be lost."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _exit_now:
            signal.signal(number, signal.SIG_IGN)
