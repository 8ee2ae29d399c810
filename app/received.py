"""Private copies of the clips that programs send or name."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import BinaryIO

from fastapi import UploadFile

from nonlocal_video.errors import UsageError, VideoError

from .messages import without_folder

MAX_NAME_BYTES = 255
"""Longest file name of common file systems, in bytes."""
MAX_PATH_BYTES = 4096
_SEPARATORS = re.compile(r"[/\\]")


@dataclass(frozen=True)
class ReceivedClip:
    """A clip in a folder of its own, which is deleted at the end of the block or by `close`."""

    path: Path
    name: str
    """Name as the program gave it."""
    folder: TemporaryDirectory[str]

    def close(self) -> None:
        """Delete the copy."""
        self.folder.cleanup()

    def __enter__(self) -> ReceivedClip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Remove this server's folder from the messages of errors."""
        try:
            yield
        except VideoError as error:
            raise VideoError(error.code, without_folder(error.message, self.path.parent)) from None
        except UsageError as error:
            raise UsageError(without_folder(str(error), self.path.parent)) from None


def receive(file: UploadFile | None, path: str | None, *, root: Path | None, max_bytes: int) -> ReceivedClip:
    """Copy an upload, or a file of the offered folder, into a private folder.

    Args:
        file: Upload.
        path: Path relative to `root`, in place of an upload.
        root: Folder whose files may be named; None offers none.
        max_bytes: Maximum size of the clip, in bytes.

    Raises:
        UsageError: Not exactly one of both is given, or the name cannot be one.
        VideoError: `not_found` or `too_large`.
    """
    if (file is None) == (path is None):
        raise UsageError("Give either file, the clip itself, or path, its name in the server's folder.")
    if file is not None:
        name = _SEPARATORS.split(file.filename or "")[-1]
        _check_name(name)
        return _copy(file.file, name, name, max_bytes)
    assert path is not None
    if root is None:
        raise UsageError("This server offers no folder (--folder-root); send the clip itself as file.")
    with open_inside(root, path) as source:
        return _copy(source, Path(path).name, path, max_bytes)


def receive_found(path: str, *, root: Path, max_bytes: int) -> ReceivedClip:
    """Copy a file that was found in the offered folder; a link to another file of the folder is that file.

    Raises:
        VideoError: `not_found` or `too_large`; also for links out of the folder, and links to themselves.
    """
    top, real = Path(os.path.realpath(root)), Path(os.path.realpath(path))
    if not real.is_relative_to(top):
        raise VideoError("not_found", f"{path} is a link out of the folder that the server offers.")
    return replace(receive(None, real.relative_to(top).as_posix(), root=top, max_bytes=max_bytes), name=path)


def open_inside(root: Path, path: str) -> BinaryIO:
    """Open a file below a folder safely, even if others change the folder meanwhile: no link is ever followed.

    Each part is opened inside the one before, so nothing can be exchanged between a check and its use.

    Args:
        root: Folder, whose own path may have links.
        path: Relative path with slashes.

    Raises:
        UsageError: The path is not a relative path below the folder.
        VideoError: `not_found`, if there is no such file, or it is a link, or below one.
    """
    parts = path.split("/")
    if not can_be(path, MAX_PATH_BYTES) or not all(parts) or {".", ".."} & {*parts}:
        raise UsageError(f"path = {short(path)} should be a file's path below the server's folder, such as b/c.mp4.")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Not to wait for the writer of a FIFO.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        raise _not_there(path) from None
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _not_there(path)
    return os.fdopen(file, "rb")


def _not_there(path: str) -> VideoError:
    return VideoError("not_found", f"{short(path)} is no file in the server's folder; links are not followed.")


def _check_name(name: str) -> None:
    if name in ("", ".", "..") or not can_be(name, MAX_NAME_BYTES):
        raise UsageError(f"The file's name {short(name)} should have 1 to {MAX_NAME_BYTES} bytes, none of them NUL.")


def can_be(name: str, max_bytes: int) -> bool:
    """Return whether a system takes this name: it is text, not too long, and without NUL."""
    try:
        return "\0" not in name and len(os.fsencode(name)) <= max_bytes
    except UnicodeEncodeError:
        return False


def short(name: str) -> str:
    """Return a name in quotes, shortened for a message."""
    return repr(name if len(name) <= 80 else f"{name[:77]}...")


def _check_size(size: int, name: str, max_bytes: int) -> None:
    if size > max_bytes:
        raise VideoError("too_large", f"{name} has {size} bytes, and {max_bytes} are allowed here.")


class _AtMost:
    """A file that is refused as soon as more bytes come than are allowed: it may still be written, or have no size."""

    def __init__(self, source: BinaryIO, name: str, max_bytes: int) -> None:
        self._source, self._name, self._max_bytes, self._size = source, name, max_bytes, 0

    def read(self, size: int = -1, /) -> bytes:
        part = self._source.read(size)
        self._size += len(part)
        _check_size(self._size, self._name, self._max_bytes)
        return part


def _copy(source: BinaryIO, file_name: str, name: str, max_bytes: int) -> ReceivedClip:
    with suppress(OSError):  # some files have no end before they are read
        source.seek(0, os.SEEK_END)
        _check_size(source.tell(), name, max_bytes)
    source.seek(0)
    folder: TemporaryDirectory[str] = TemporaryDirectory(prefix="nonlocal-video-clip-")
    try:
        path = Path(folder.name) / file_name
        with path.open("xb") as target:
            shutil.copyfileobj(_AtMost(source, name, max_bytes), target, 1024**2)
    except BaseException:
        folder.cleanup()
        raise
    return ReceivedClip(path, name, folder)
