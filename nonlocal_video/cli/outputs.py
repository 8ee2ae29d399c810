"""Checks of output paths, made before the work starts."""

from __future__ import annotations

from pathlib import Path

from nonlocal_video.errors import UsageError
from nonlocal_video.io import check_new


def check_folder(output: Path) -> None:
    """Check that a path is a folder or does not exist yet.

    Raises:
        UsageError: The path is a file.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"output = {str(output)!r} is a file; give a folder.")


def check_new_file(output: Path | None, *suffixes: str) -> None:
    """Check that a new file can have this path; nothing is written.

    Args:
        output: Path of the file; None is accepted.
        suffixes: Allowed suffixes; any if none are given.

    Raises:
        UsageError: The suffix is not allowed, the folder does not exist, or the path exists already.
    """
    if output is None:
        return
    if suffixes and output.suffix.lower() not in suffixes:
        raise UsageError(f"output = {str(output)!r} should end in {' or '.join(suffixes)}.")
    if not output.parent.is_dir():
        raise UsageError(f"output = {str(output)!r} is in a folder that does not exist; create it first.")
    if output.is_dir():
        raise UsageError(f"output = {str(output)!r} is a folder; give a file in it.")
    check_new(output)
