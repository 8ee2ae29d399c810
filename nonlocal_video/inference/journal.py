"""The journal of a run: one line per entry, with a checksum chained over all previous lines."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.io import lock_of, refuse_link

if TYPE_CHECKING:
    from filelock import FileLock

_MAGIC = b"nonlocal-video journal 1 "
_DIGEST_BYTES = 8
_SYNC_SECONDS = 1.0
_FLAGS = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

Entry = dict[str, Any]


class JournalError(Exception):
    """A line is damaged."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number, self.reason = number, reason


class Journal:
    """An append-only file of settings and entries, which one process at a time can open.

    A line is JSON, a space and 16 hexadecimal digits: BLAKE2b of the previous digest and the JSON. So a changed,
    missing, repeated or moved line is detected at that line. An incomplete last line was interrupted while it was
    written, and is ignored.

    Attributes:
        path: Path of the file.
        is_new: Whether there are no settings yet, so that `begin` has to be called.
        settings: Settings in the first line.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open the file; `entries` reads it.

        Args:
            path: Path of the file, which must not be a link.
            create: Whether the file must not exist yet.

        Raises:
            UsageError: The path is a link or not a file, another process has it open, or it is not a journal.
            OutputError: The file cannot be opened.
        """
        self.path = path
        self.settings: Entry = {}
        self._digest, self._whole, self._synced = b"", 0, time.monotonic()
        self._beside: FileLock | None = None
        refuse_link(path, hard=True)
        try:
            self._descriptor = os.open(path, _FLAGS | os.O_CREAT | (os.O_EXCL if create else 0), 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:  # it became a link
                refuse_link(path, hard=True)
            raise OutputError(
                f"{str(path)!r} cannot be written: {error.strerror}. Choose another path for the output."
            ) from error
        try:
            self._lock()
            self.is_new = self._read_settings()
        except BaseException:
            self.close()
            raise

    def begin(self, settings: Entry) -> None:
        """Write the settings as the first line."""
        os.ftruncate(self._descriptor, 0)
        self.settings = json.loads(json.dumps(settings))
        self._write(_MAGIC, self.settings)

    def entries(self) -> Iterator[Entry]:
        """Yield all entries, in the order in which they were written.

        Raises:
            JournalError: A line is damaged.
        """
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            header = file.readline()
            digest, number, whole = _checked(1, header.removeprefix(_MAGIC), b"")[1], 1, file.tell()
            while (line := file.readline()).endswith(b"\n"):
                number += 1
                entry, digest = _checked(number, line, digest)
                whole = file.tell()
                yield entry
        self._digest, self._whole = digest, whole

    def drop_half_line(self) -> None:
        """Remove an incomplete last line, so that entries can be appended; call it after `entries`."""
        os.ftruncate(self._descriptor, self._whole)

    def append(self, entry: Entry) -> None:
        """Append an entry; entries are synced to disk about once a second.

        Raises:
            OSError: The disk is full or fails. Previous entries are kept.
        """
        self._write(b"", entry)
        if time.monotonic() - self._synced >= _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Sync the file to disk."""
        os.fsync(self._descriptor)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file and release its lock."""
        if self._descriptor >= 0:
            with suppress(OSError):  # the error was already reported
                os.fsync(self._descriptor)
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        if self._beside is not None:
            self._beside.release()
            self._beside = None

    def _write(self, prefix: bytes, entry: Entry) -> None:
        text = json.dumps(entry).encode()
        digest = _next_digest(self._digest, text)
        left = memoryview(prefix + text + b" " + digest.hex().encode() + b"\n")
        before = os.fstat(self._descriptor).st_size
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            with suppress(OSError):  # half a line would corrupt the next one
                os.ftruncate(self._descriptor, before)
            raise
        self._digest = digest

    def _read_settings(self) -> bool:
        """Read the settings; return whether they are still missing: the file is new or its first line incomplete."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            header = file.readline()
        if not header.endswith(b"\n"):
            if not (header.startswith(_MAGIC) or _MAGIC.startswith(header)):
                raise self._not_a_journal()
            return True
        if header.startswith(b'{"settings"'):
            raise UsageError(
                f"{str(self.path)!r} was written by an earlier version, without checksums, and cannot be continued. "
                f"Use another output name, or delete it."
            )
        if not header.startswith(_MAGIC):
            raise self._not_a_journal()
        try:
            self.settings, _ = _checked(1, header.removeprefix(_MAGIC), b"")
        except JournalError as error:
            raise UsageError(
                f"Line 1 of {str(self.path)!r} is damaged: {error.reason}. Use another output name."
            ) from error
        return False

    def _not_a_journal(self) -> UsageError:
        return UsageError(f"Line 1 of {str(self.path)!r} is damaged or not of this program. Use another output name.")

    def _lock(self) -> None:
        """Lock the file itself, or, where the system has no such lock (Windows), a file beside it."""
        try:
            import fcntl
        except ImportError:
            from filelock import Timeout

            beside = lock_of(self.path.with_name(f"{self.path.name}.lock"))
            try:
                beside.acquire(timeout=0)
            except Timeout as error:
                raise self._busy() from error
            self._beside = beside
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise self._busy() from error

    def _busy(self) -> UsageError:
        return UsageError(f"Another process is writing {str(self.path)!r}; wait for it or use another name.")


def _next_digest(before: bytes, text: bytes) -> bytes:
    return hashlib.blake2b(before + text, digest_size=_DIGEST_BYTES).digest()


def _checked(number: int, line: bytes, before: bytes) -> tuple[Entry, bytes]:
    """Return the entry of a line, and the line's digest."""
    text, _, written = line[:-1].rpartition(b" ")
    digest = _next_digest(before, text)
    if written != digest.hex().encode():
        raise JournalError(number, "its checksum does not match it and the previous lines")
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JournalError(number, str(error)) from error
    if not isinstance(entry, dict):
        raise JournalError(number, "it is not a JSON object")
    return entry, digest
