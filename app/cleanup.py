"""Deletion of expired uploads and results, including files that Gradio does not track, and return of free memory."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEEP_SECONDS = 3600.0
"""Default lifetime of uploads and overlays on the server, in seconds."""
_CLEAN_EVERY_SECONDS = 60.0


def clean_every_seconds(keep_seconds: float) -> float:
    """Return the interval between cleanups: a tenth of the lifetime, at most a minute."""
    return min(_CLEAN_EVERY_SECONDS, keep_seconds / 10)


@contextmanager
def cleaning_up(folder: Path, keep_seconds: float) -> Iterator[None]:
    """Delete expired files in a folder, and empty folders, in another thread during the block.

    Gradio's `delete_cache` deletes only files that its components track. It leaves the empty file that it makes for
    each clip passed to a callback, images of components that a callback updated, and all folders. Free memory
    is returned to the system at the same interval.

    Args:
        folder: Folder of this server alone. Files that exist at the start, such as the samples, are kept.
        keep_seconds: Lifetime of files after their last change.
    """
    kept, ended = set(folder.rglob("*")), threading.Event()
    every_seconds = clean_every_seconds(keep_seconds)

    def clean() -> None:
        # Gradio cleans up at the same interval and must be first: it tracks files that it does not find forever.
        while not ended.wait(every_seconds):
            clean_up(folder, kept, older_than_seconds=keep_seconds + 2 * every_seconds)
            give_memory_back()

    thread = threading.Thread(target=clean, name="cleanup", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def clean_up(folder: Path, kept: set[Path], *, older_than_seconds: float) -> None:
    """Delete files and empty folders that are older than a limit, except those in `kept`."""
    before = time.time() - older_than_seconds
    for path in sorted(folder.rglob("*"), reverse=True):  # contents before their folder
        # Other threads delete too; folders that are not empty stay.
        with suppress(OSError):
            if path in kept or path.lstat().st_ctime > before:
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                os.unlink(path)


def give_memory_back() -> None:
    """Return free memory of the C library to the system, if the library can.

    Callbacks run in short-lived threads, and glibc has a heap for each: memory freed there would stay with the server
    and grow with every visit.
    """
    if trim := getattr(ctypes.CDLL(None) if os.name == "posix" else None, "malloc_trim", None):
        trim(0)
