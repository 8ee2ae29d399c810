"""Clips in object storage, through fsspec: `s3://bucket/clips`, `gs://...`, `memory://...`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.file_kinds import kind_of_file, kind_of_folder


def is_remote(path: str) -> bool:
    """Whether `path` is a URL and not a file's name."""
    return "://" in path and not os.path.lexists(path)


def open_storage(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path inside it.

    Raises:
        UsageError: An unknown kind of storage, or one whose package (s3fs, gcsfs, adlfs, ...) is not installed.
    """
    import fsspec

    try:
        storage, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url!r} cannot be opened: {error}") from error
    return storage, path


def list_remote(url: str, *, all_files: bool = False) -> Iterator[tuple[str, str | None]]:
    """Yield what lies below a URL, folder by folder, in name order; a file is itself, and so is what does not exist.

    Args:
        url: A folder or a file in object storage.
        all_files: Pass nothing over for its name.

    Yields:
        A URL, and the kind for which it is passed over, as of a folder on disk; None for what may be a clip.
    """
    storage, path = open_storage(url)
    try:
        is_folder = storage.isdir(path)
    except Exception:  # each storage has errors of its own; it gets a row, which says what is wrong
        is_folder = False
    if not is_folder:
        yield url, None
        return
    for folder, names_of_folders, names in storage.walk(path):

        def whole(name: str, folder: str = folder) -> str:
            return str(storage.unstrip_protocol(f"{folder.rstrip('/')}/{name}"))

        names_of_folders.sort()  # what is left in this list is searched next
        if not all_files:
            for name in list(names_of_folders):
                if kind := kind_of_folder(name):
                    names_of_folders.remove(name)
                    yield whole(name), kind
        yield from ((whole(name), None if all_files else kind_of_file(name)) for name in sorted(names) if name)


@contextmanager
def local_copy(url: str, *, max_bytes: int) -> Iterator[str]:
    """A copy of a stored file for as long as it is decoded: the decoders read files only.

    Raises:
        VideoError: `not_found`, also where it cannot be fetched; `too_large` before anything is fetched.
    """
    storage, path = open_storage(url)
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-") as folder:
        copy = Path(folder) / f"clip{PurePosixPath(path).suffix}"
        try:
            size = storage.size(path)
            if size is None or size <= max_bytes:
                with storage.open(path, "rb") as source, open(copy, "wb") as target:
                    shutil.copyfileobj(source, target, 1024 * 1024)
        except FileNotFoundError as error:
            raise VideoError("not_found", f"There is no file {url}.") from error
        except Exception as error:  # each storage has errors of its own
            why = f"{type(error).__name__}: {error}"
            raise VideoError(
                "not_found", f"{url} cannot be fetched ({why}); check the address, the network and your credentials."
            ) from error
        if size is not None and size > max_bytes:
            raise VideoError("too_large", f"{url} has {size:,} bytes; the limit is {max_bytes:,}.")
        yield str(copy)
