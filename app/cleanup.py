"""What visitors leave behind goes when its time is over: files, also those that Gradio keeps no note of, and memory."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEEP_SECONDS = 3600.0
"""How long uploads and overlays stay on the server, unless it is told otherwise."""
_CLEAN_EVERY_SECONDS = 60.0


def clean_every_seconds(keep_seconds: float) -> float:
    """How often to look for what is too old: a tenth of its time, and each minute at least."""
    return min(_CLEAN_EVERY_SECONDS, keep_seconds / 10)


@contextmanager
def cleaning_up(folder: Path, keep_seconds: float) -> Iterator[None]:
    """Delete old files of a folder and the folders that this leaves empty, in a thread beside the block.

    Gradio's `delete_cache` deletes what its components have a note of. That leaves the empty file that it makes for
    every clip it hands to a callback, the pictures of components that a callback has updated, and all folders. Free
    memory is given back as often.

    Args:
        folder: Of this server alone. What lies there at the beginning, like the samples, stays.
        keep_seconds: For how long files stay after their last change.
    """
    kept, ended = set(folder.rglob("*")), threading.Event()
    every_seconds = clean_every_seconds(keep_seconds)

    def clean() -> None:
        # Gradio looks as often and must be the first: what it does not find it keeps a note of for ever.
        while not ended.wait(every_seconds):
            clean_up(folder, kept, older_than_seconds=keep_seconds + 2 * every_seconds)
            give_memory_back()

    thread = threading.Thread(target=clean, name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def clean_up(folder: Path, kept: set[Path], *, older_than_seconds: float) -> None:
    """Delete once: files and empty folders whose last change is longer ago, except those that are kept."""
    before = time.time() - older_than_seconds
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        # Other threads delete too; a folder that is not empty stays.
        with suppress(OSError):
            if path in kept or path.lstat().st_ctime > before:
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                os.unlink(path)


def give_memory_back() -> None:
    """Let the C library return what is free to the system, where it is one that can.

    Callbacks run in threads that come and go, and glibc has a heap for each: what was freed there would stay with the
    server, more of it with every visit.
    """
    if trim := getattr(ctypes.CDLL(None) if os.name == "posix" else None, "malloc_trim", None):
        trim(0)
