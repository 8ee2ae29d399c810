"""The shelf of the results: their folders, how many there are, how large they are, and what has to go."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from ..cleanup import KEEP_SECONDS
from .files import KeptResult

MAX_RESULTS = 500
"""Maximum number of results of all visitors; the oldest that nobody saved are dropped first."""
MAX_BYTES = 2 * 1024**3
"""Maximum size of all results on the disk, with the files that were made of them."""


class Shelf:
    """Results in private folders, bounded in number and size; nothing outside of the folders is ever read."""

    def __init__(
        self,
        *,
        keep_seconds: float = KEEP_SECONDS,
        max_results: int = MAX_RESULTS,
        max_bytes: int = MAX_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Make an empty store.

        Args:
            keep_seconds: Lifetime of results that nobody saves.
            max_results: Maximum number of results.
            max_bytes: Maximum size of all results, in bytes.
            now: Clock, in seconds since 1970.
        """
        self.keep_seconds = keep_seconds
        self._max_results, self._max_bytes, self._now = max_results, max_bytes, now
        self._kept: OrderedDict[str, KeptResult] = OrderedDict()  # oldest first
        self._sizes: dict[str, int] = {}
        self._lock = threading.RLock()
        self._making = threading.Lock()  # held while files are made; taken before the other one
        self._folders: dict[bool, TemporaryDirectory[str]] = {}  # by whether its results are saved

    def __len__(self) -> int:
        return len(self._kept)

    def close(self) -> None:
        """Delete everything."""
        with self._making, self._lock:
            self._kept.clear()
            self._sizes.clear()
            for folder in self._folders.values():
                folder.cleanup()
            self._folders.clear()

    def _folder(self, *, is_saved: bool) -> Path:
        with self._lock:
            if is_saved not in self._folders:
                # Among the uploads the cleaner deletes what is too old; what is saved lies elsewhere.
                among = None if is_saved else os.environ.get("GRADIO_TEMP_DIR")
                self._folders[is_saved] = TemporaryDirectory(prefix="nonlocal-video-results-", dir=among)
            return Path(self._folders[is_saved].name)

    def _drop(self, id: str) -> None:
        kept = self._kept.pop(id)
        self._sizes.pop(id, None)
        shutil.rmtree(kept.folder, ignore_errors=True)

    def _measure(self, id: str) -> None:
        """Add up a result's files, and make room for it."""
        with suppress(FileNotFoundError):
            self._sizes[id] = sum(path.stat().st_size for path in self._kept[id].folder.iterdir())
        self._make_room(spare=id)

    def _make_room(self, spare: str) -> None:
        """Drop what is too old, and the oldest beyond the limits; saved ones stay."""
        for kept in list(self._kept.values()):
            is_old = self._now() - kept.created > self.keep_seconds
            is_beyond = len(self._kept) > self._max_results or sum(self._sizes.values()) > self._max_bytes
            if not kept.is_saved and kept.id != spare and (is_old or is_beyond):
                self._drop(kept.id)
