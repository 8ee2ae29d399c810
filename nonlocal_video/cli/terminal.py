"""The terminal: consoles, progress bars and exit statuses, the same for all commands."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import typer
from rich.console import Console
from rich.progress import Progress, ProgressColumn

from nonlocal_video.errors import DeviceError, ExportError, NonlocalVideoError, OutputError, TrainingError, VideoError

STATUS_FAILED = 1
"""Some inputs failed, each with a message or a row; or the output could not be written."""
STATUS_USAGE = 2
"""Wrong usage; nothing was done."""
STATUS_DEVICE = 3
"""The device failed; nothing was written for what was not done."""
STATUS_INTERRUPTED = 130
"""Ctrl-C or SIGTERM."""


_bars: WeakSet[Progress] = WeakSet()


def table_console(width: int = 140) -> Console:
    """Return a console for tables on standard output, with this width in characters if that is no terminal."""
    return Console(width=None if sys.stdout.isatty() else width)


def progress_bar(*columns: ProgressColumn, shown: bool = True, **options: Any) -> Progress:
    """Return a progress bar on standard error, which disappears at its end and only shows on a terminal.

    Args:
        columns: Columns of the bar.
        shown: False never shows it.
        options: Further options of `rich.progress.Progress`.
    """
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal), **options)
    _bars.add(bar)
    return bar


@contextmanager
def telling_runtime() -> Iterator[None]:
    """Print what runs the network, and why, to standard error inside the block."""
    log, handler = logging.getLogger("nonlocal_video.runtime"), _ToStandardError()
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # a server has a handler of its own for all messages
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class _ToStandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        for bar in list(_bars):
            if bar.live.is_started:  # above the bar, which would be broken otherwise
                bar.console.print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)
                return
        typer.echo(record.getMessage(), err=True)


def report_error(error: Exception) -> int:
    """Print the message of an error that ends a command, and return the exit status.

    Raises:
        Exception: The error itself, if a user cannot act on it.
    """
    message, status = str(error), STATUS_FAILED
    if isinstance(error, VideoError):
        message = f"{error.code}: {error.message}"
    elif isinstance(error, DeviceError):
        status = STATUS_DEVICE
    elif isinstance(error, NonlocalVideoError):
        status = STATUS_FAILED if isinstance(error, (ExportError, OutputError, TrainingError)) else STATUS_USAGE
    elif isinstance(error, ImportError):  # torch is missing or cannot be mapped, or an extra is not installed
        message = f"A package cannot be loaded: {error}. Run `nonlocal-video doctor` to see what works."
    elif isinstance(error, OSError):  # a full disk, also for standard output; a read-only folder; too long a name
        message = f"{error}. Use a path that can be read and written and has free space, and try again."
    elif isinstance(error, RuntimeError) and _is_of_a_device(error):
        reason = str(error).splitlines()[0].rstrip(".")
        message = f"The device failed: {reason}. If it fails again, run `nonlocal-video doctor`."
        status = STATUS_DEVICE
    else:
        raise error
    typer.echo(message, err=True)
    return status


@contextmanager
def naming_resume(*, keeps: bool, command: str = "the same command with --resume") -> Iterator[None]:
    """Add to the error of a device that fails inside the block how the run continues.

    Args:
        keeps: Whether the run keeps what is done; otherwise the error stays as it is.
        command: What continues the run.

    Raises:
        DeviceError: The device has failed.
    """
    try:
        yield
    except DeviceError as error:
        if not keeps:
            raise
        raise DeviceError(f"{error} What is done is kept; {command} continues.") from None


def _is_of_a_device(error: RuntimeError) -> bool:
    """Return whether PyTorch says that a device has failed, in a verb that does not translate its errors."""
    if "torch" not in sys.modules:
        return False
    from nonlocal_video.inference.device_errors import failure_of

    return failure_of(error) == "device"
