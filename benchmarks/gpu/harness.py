"""Runs checks, each in a process of its own with a time limit, and writes what each gave as soon as it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SHORTEST_SECONDS = 5.0
"""Seconds without which no check is begun."""
_RESERVE_SECONDS = 3.0
"""Time that the last record and the table need."""


class CheckFailedError(Exception):
    """Something that has to hold does not; the message says what was found and what was wanted."""


@dataclass(frozen=True)
class Context:
    """Arguments of a check.

    Attributes:
        device: `cuda`, or `cpu` for the same in miniature.
        model: A catalogue name or a weights file.
        folder: For its files.
        frames: Whether clips are real videos, or `arrays` where no decoder is installed.
        figures_file: JSON that `note` keeps up to date, so that a check that is cut off still tells something.
    """

    device: str
    model: str
    folder: Path
    frames: str
    figures_file: Path

    @property
    def miniature(self) -> bool:
        """Whether sizes are small and figures mean nothing."""
        return self.device == "cpu"

    def note(self, **figures: Any) -> None:
        """Add figures to the record."""
        known = read_json(self.figures_file)
        temporary = self.figures_file.with_suffix(".new")
        temporary.write_text(json.dumps(known | figures))
        os.replace(temporary, self.figures_file)


@dataclass(frozen=True)
class Check:
    """A named check and the seconds after which it is killed."""

    name: str
    function: Callable[[Context], None]
    seconds: float


def require(holds: bool, message: str) -> None:
    """Fail the check unless something holds."""
    if not holds:
        raise CheckFailedError(message)


def run_checks(
    checks: Sequence[Check], *, device: str, model: str, frames: str, folder: Path, output: Path, seconds: float
) -> list[dict[str, Any]]:
    """Run checks in turn, and append a record of each to `results.jsonl`.

    Args:
        checks: The cheapest and most important first: those for which no time is left are not begun.
        device: See `Context`, as for `model` and `frames`.
        model: What the checks load.
        frames: `videos` or `arrays`.
        folder: Working folder; each check gets one in it.
        output: Folder of `results.jsonl`, `log.txt` and `summary.txt`.
        seconds: For all of them together.

    Returns:
        The records: `check`, `status` (passed, failed, timed_out, not_run), `seconds`, `figures`, `error`.
    """
    deadline = time.monotonic() + seconds
    records = []
    with open(output / "results.jsonl", "w", encoding="utf-8") as results:
        for check in checks:
            place = folder / check.name
            place.mkdir()
            context = Context(device, model, place, frames, folder / f"{check.name}.json")
            left = deadline - time.monotonic() - _RESERVE_SECONDS
            if left < _SHORTEST_SECONDS:
                record = _record(check, "not_run", 0.0, {}, f"The {seconds:g} seconds of the run were over.")
            else:
                record = _run(check, context, min(check.seconds, left), output / "log.txt")
            records.append(record)
            results.write(json.dumps(record) + "\n")
            results.flush()
            os.fsync(results.fileno())
            print(_line(record), flush=True)
    (output / "summary.txt").write_text(summary(records), encoding="utf-8")
    return records


def summary(records: Sequence[dict[str, Any]]) -> str:
    """Return a table of what was checked, with the figures and the last line of each error."""
    lines = []
    for record in records:
        lines.append(_line(record))
        lines += [f"    {name}: {json.dumps(value)}" for name, value in record["figures"].items()]
    passed = sum(record["status"] == "passed" for record in records)
    return "\n".join([*lines, f"{passed} of {len(records)} checks passed."]) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file, empty if there is no file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


def _run(check: Check, context: Context, limit: float, log: Path) -> dict[str, Any]:
    """Run one check in a fork: nothing in this process has touched a GPU, and a dead context goes with the fork."""
    started = time.monotonic()
    error_file = context.folder.parent / f"{check.name}.error"
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _child(check, context, error_file, log)
    try:
        status = _waited(child, started + limit)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # what it started and left
    elapsed = time.monotonic() - started
    figures = read_json(context.figures_file)
    if status is None:
        return _record(check, "timed_out", elapsed, figures, f"It took more than {limit:.0f} s and was killed.")
    if status == 0:
        return _record(check, "passed", elapsed, figures, None)
    said = error_file.read_text() if error_file.exists() else f"Its process ended with {_in_words(status)}."
    return _record(check, "failed", elapsed, figures, said)


def _child(check: Check, context: Context, error_file: Path, log: Path) -> None:
    """Run a check and end this process."""
    status = 1
    try:
        os.setsid()
        with open(log, "ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
        print(f"==== {check.name}", flush=True)
        check.function(context)
        status = 0
    except CheckFailedError as error:
        print(f"FAILED: {error}", flush=True)
        error_file.write_text(str(error))
    except BaseException as error:
        traceback.print_exc()
        error_file.write_text(f"{type(error).__name__}: {error}")
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)  # an interpreter that tidies up would call a context that may be dead


def _waited(child: int, deadline: float) -> int | None:
    """Return the child's wait status; None if it was killed at the deadline."""
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _in_words(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"


def _record(check: Check, status: str, seconds: float, figures: dict[str, Any], error: str | None) -> dict[str, Any]:
    return {
        "check": check.name,
        "status": status,
        "seconds": round(seconds, 2),
        "figures": figures,
        "error": error,
    }


def _line(record: dict[str, Any]) -> str:
    error = "" if record["error"] is None else f"  {record['error'].strip().splitlines()[-1][:200]}"
    return f"{record['status']:>9}  {record['seconds']:6.1f} s  {record['check']}{error}"
