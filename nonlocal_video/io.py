"""Write files that appear whole or not at all, never through a link; hash files."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nonlocal_video.errors import UsageError

if TYPE_CHECKING:
    from filelock import FileLock

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, part: Path | None = None, sync: bool = True) -> Iterator[IO[bytes]]:
    """Give a file to write; when the block ends well it takes the place of `path` in one step, on the disk for good.

    After an error nothing has changed. If `path` is a link, the link is replaced and what it leads to stays.

    Args:
        path: The file.
        part: Where the bytes lie until then, in the same folder; `.NAME.part` if not given. What a killed process left
            there is replaced.
        sync: Force it to the disk. Without, a power cut may leave the earlier file or an empty one.

    Raises:
        UsageError: `part` is a link, or not a file.
        OSError: The disk is full or fails, or the folder is not there.
    """
    path = Path(path)
    part = part_of(path) if part is None else part
    refuse_link(part)
    part.unlink(missing_ok=True)
    descriptor = os.open(part, _NEW, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
        if sync:
            sync_folder(path.parent)  # else a power cut may undo the rename
    except BaseException:
        with suppress(OSError):  # the error that led here is the one to report
            part.unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_new(output: Path) -> None:
    """Refuse a name that something has: no result takes the place of an earlier one unasked.

    Raises:
        UsageError: A file, a folder or a link has it.
    """
    try:
        kind = os.stat(output).st_mode
    except OSError:
        kind = 0
    if os.path.lexists(output) and not (stat.S_ISCHR(kind) or stat.S_ISFIFO(kind)):  # /dev/stdout may be written to
        raise UsageError(f"output = {str(output)!r} exists. Use another name, or delete it.")


def part_of(path: Path) -> Path:
    """Return where `replacing` keeps the bytes of a file that is not whole yet."""
    return path.with_name(f".{path.name}.part")


def refuse_link(path: Path, *, hard: bool = False) -> None:
    """Refuse a name that something else has than a file; a name that nothing has is fine.

    Args:
        path: The name.
        hard: Refuse a file that has a second name, too: writing into it changes what that name shows.

    Raises:
        UsageError: It is a link, a folder, a pipe or the like.
    """
    try:
        status = os.lstat(path)
    except OSError:  # nothing has it, or nothing can; opening it says so
        return
    if stat.S_ISREG(status.st_mode) and not (hard and status.st_nlink > 1):
        return
    if stat.S_ISREG(status.st_mode):
        kind = "has a second name (a hard link)"
    else:
        kind = "is a link" if stat.S_ISLNK(status.st_mode) else "is not a file"
    raise UsageError(f"{str(path)!r} {kind}, and this run would write there. Delete it, or use another output name.")


def lock_of(path: Path) -> FileLock:
    """Return the lock of this name, not yet acquired.

    Raises:
        UsageError: The name is a link, which would be followed and what it leads to emptied.
    """
    from filelock import FileLock  # not before it is needed: every verb imports this module

    refuse_link(path)
    return FileLock(path)


def sync_folder(folder: Path) -> None:
    """Force a folder's list of names to the disk, where the system can."""
    if os.name != "posix":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
