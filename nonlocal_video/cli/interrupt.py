"""Ctrl-C that loses nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import typer

STATUS_INTERRUPTED = 130
TIDYING_SECONDS = 10.0


class GracefulInterrupt:
    """The first Ctrl-C or SIGTERM lets what is in hand be finished; a second one stops at once. A context manager.

    Further ones change nothing while what was begun is tidied up, for `TIDYING_SECONDS` at most.

    Once it has ended after a signal, another one ends the process without a word, and without its tidying up. Processes
    that are forked meanwhile are part of what is in hand: the signal does nothing to them.
    """

    def __init__(self) -> None:
        self.asked = False
        self._stopped: float | None = None
        self._process = os.getpid()
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> GracefulInterrupt:
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, _leave if self.asked else handler)
        self._earlier = {}

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if self._stopped is not None and time.monotonic() - self._stopped > TIDYING_SECONDS:
            os._exit(STATUS_INTERRUPTED)
        if self._stopped is not None:
            return
        if self.asked:
            self._stopped = time.monotonic()
            sys.unraisablehook = self._while_stopping
            raise KeyboardInterrupt
        self.asked = True
        typer.echo("Finishing what is in hand; once more stops at once.", err=True)

    def _while_stopping(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Say nothing of errors that Python cannot raise, and interrupt again if one of them was the interrupt.

        A signal may arrive in a destructor, where Python drops whatever its handler raises; and what is torn down at
        once, such as a loader whose workers are gone, complains in its destructor.
        """
        if isinstance(unraisable.exc_value, KeyboardInterrupt) and self._earlier:
            threading.Timer(0.01, self._interrupt_again).start()

    def _interrupt_again(self) -> None:
        self._stopped = None
        os.kill(self._process, signal.SIGINT)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(STATUS_INTERRUPTED)
