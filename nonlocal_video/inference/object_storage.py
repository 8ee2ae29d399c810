"""Clips at an address, through fsspec: `https://...`, `s3://bucket/clips`, `gs://...`, `memory://...`."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.file_kinds import kind_of_file, kind_of_folder

_CHUNK_BYTES = 1024 * 1024
_SILENCE_SECONDS = 60.0
"""Longest time without a byte from a web server, and the time after which a slow one is given up."""
_SLOWEST_BYTES_PER_SECOND = 1000
_WEB = re.compile(r"https?://", re.IGNORECASE)
_SUFFIX = re.compile(r"\.\w{1,10}$", re.ASCII)


def is_remote(path: str) -> bool:
    """Whether `path` is a URL and not a file's name."""
    return "://" in path and not os.path.lexists(path)


def open_storage(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path inside it.

    Raises:
        UsageError: An unknown kind of storage, or one whose package (s3fs, gcsfs, adlfs, ...) is not installed.
    """
    import fsspec

    options: dict[str, Any] = {}
    try:
        if _WEB.match(url):
            import aiohttp

            # Its own limit is five minutes for a whole file, however fast it comes.
            options["client_kwargs"] = {
                "timeout": aiohttp.ClientTimeout(
                    total=None, sock_connect=_SILENCE_SECONDS / 2, sock_read=_SILENCE_SECONDS
                )
            }
        storage, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url!r} cannot be opened: {error}") from error
    return storage, path


def is_remote_folder(url: str) -> bool:
    """Whether a URL is a folder of files; one of a web server is a file, as only the whole answer would tell."""
    if _WEB.match(url):
        return False
    storage, path = open_storage(url)
    try:
        return bool(storage.isdir(path))
    except Exception:  # each storage has errors of its own; it gets a row, which says what is wrong
        return False


def is_folder(path: str) -> bool:
    """Whether a path or a URL is a folder."""
    return is_remote_folder(path) if is_remote(path) else os.path.isdir(path)


def list_remote(url: str, *, all_files: bool = False) -> Iterator[tuple[str, str | None]]:
    """Yield what lies below a URL, folder by folder, in name order; a file is itself, and so is what does not exist.

    Args:
        url: A folder or a file in object storage.
        all_files: Pass nothing over for its name.

    Yields:
        A URL, and the kind for which it is passed over, as of a folder on disk; None for what may be a clip.
    """
    if not is_remote_folder(url):
        open_storage(url)  # refuses a kind of storage that nobody knows
        yield url, None
        return
    storage, path = open_storage(url)
    for folder, names_of_folders, names in storage.walk(path):

        def whole(name: str, folder: str = folder) -> str:
            return str(storage.unstrip_protocol(f"{folder.rstrip('/')}/{name}"))

        names_of_folders.sort()  # the names that stay in this list are searched next
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
        VideoError: `not_found`, also where it cannot be fetched; `too_large` before anything is fetched, or where
            nobody says the size as soon as more has come; `timeout` if it comes too slowly.
    """
    storage, path = open_storage(url)
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-") as folder:
        suffix = _SUFFIX.search(re.split(r"[?#]", path)[0] if _WEB.match(url) else path)
        copy = Path(folder) / f"clip{suffix[0] if suffix else ''}"
        try:
            with _opened(storage, path, url, max_bytes) as source, open(copy, "wb") as target:
                _copy(source, target, url, max_bytes)
        except VideoError:
            raise
        except FileNotFoundError as error:
            raise VideoError("not_found", f"There is no file {url}.") from error
        except TimeoutError as error:
            raise _too_slow(url) from error
        except Exception as error:  # each storage has errors of its own
            why = f"{type(error).__name__}: {error}"
            if "Timeout" in type(error).__name__:  # of fsspec and of aiohttp, which are not all a TimeoutError
                raise _too_slow(url) from error
            raise VideoError(
                "not_found", f"{url} cannot be fetched ({why}); check the address, the network and your credentials."
            ) from error
        yield str(copy)


def _opened(storage: Any, path: str, url: str, max_bytes: int) -> Any:
    """The stored file, unless it says that it is too large."""
    if not _WEB.match(url):
        if (size := storage.size(path)) is not None and size > max_bytes:
            raise _too_large(url, size, max_bytes)
        return storage.open(path, "rb")
    # One request, as not every server gives parts of a file, or answers when it is asked for the size alone.
    source = storage.open(path, "rb", block_size=0, size=1, headers={"Accept-Encoding": "identity"})
    size = getattr(getattr(source, "r", None), "content_length", None)
    if size is not None and size > max_bytes:
        source.close()
        raise _too_large(url, size, max_bytes)
    return source


def _copy(source: Any, target: Any, url: str, max_bytes: int) -> None:
    copied, started = 0, time.monotonic()
    while chunk := source.read(_CHUNK_BYTES):
        copied += len(chunk)
        if copied > max_bytes:
            raise VideoError("too_large", f"{url} has more than {max_bytes:,} bytes, which is the limit.")
        seconds = time.monotonic() - started
        if seconds > _SILENCE_SECONDS and copied < _SLOWEST_BYTES_PER_SECOND * seconds:
            raise _too_slow(url)
        target.write(chunk)


def _too_large(url: str, size: int, max_bytes: int) -> VideoError:
    return VideoError("too_large", f"{url} has {size:,} bytes; the limit is {max_bytes:,}.")


def _too_slow(url: str) -> VideoError:
    return VideoError(
        "timeout",
        f"{url} comes too slowly: nothing for {_SILENCE_SECONDS:g} s, or less than {_SLOWEST_BYTES_PER_SECOND:,} bytes "
        f"a second. Fetch it yourself and give the file.",
    )
