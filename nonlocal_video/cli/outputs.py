"""Where a result goes: asked before the work, so that none is done in vain."""

from __future__ import annotations

from pathlib import Path

from nonlocal_video.errors import UsageError
from nonlocal_video.io import check_new


def check_folder(output: Path) -> None:
    """Whether files can be written into a folder of this name, which need not be there yet.

    Raises:
        UsageError: Something else has the name.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"output = {str(output)!r} is a file; name a folder.")


def check_place(output: Path | None, *endings: str) -> None:
    """Whether a file can have this name; nothing is written.

    Args:
        output: None if none was asked for.
        endings: Those that are known, if not any will do.

    Raises:
        UsageError: Another ending, a folder that is not there, a folder instead of a file, or a file that exists.
    """
    if output is None:
        return
    if endings and output.suffix.lower() not in endings:
        raise UsageError(f"output = {str(output)!r} should end in {' or '.join(endings)}.")
    if not output.parent.is_dir():
        raise UsageError(f"output = {str(output)!r} is in a folder that does not exist; make it first.")
    if output.is_dir():
        raise UsageError(f"output = {str(output)!r} is a folder; name a file in it.")
    check_new(output)
