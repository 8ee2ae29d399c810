"""Clips at URLs, through fsspec: `https://...`, `s3://bucket/clips`, `gs://...`, `memory://...`."""

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
"""Maximum time without a byte from a web server, and the time after which a slow download is aborted."""
_MIN_BYTES_PER_SECOND = 1000
_WEB = re.compile(r"https?://", re.IGNORECASE)
_VIDEO_SITE = re.compile(
    r"https?://([\w-]+\.)*(youtube\.com|youtu\.be|vimeo\.com|dailymotion\.com|tiktok\.com|twitch\.tv|bilibili\.com)(/|$)",
    re.IGNORECASE | re.ASCII,
)
"""Sites whose addresses are pages around a player."""
_PAGE = (b"<!doctype html", b"<html")
_PAGE_BYTES = 4096
"""A web page is told by so many bytes of its beginning."""
_SUFFIX = re.compile(r"\.\w{1,10}$", re.ASCII)


def is_remote(path: str) -> bool:
    """Return whether `path` is a URL rather than a file name."""
    return "://" in path and not os.path.lexists(path)


def open_storage(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path inside it.

    Raises:
        UsageError: The kind of storage is unknown, or its package (s3fs, gcsfs, adlfs, ...) is not installed.
    """
    import fsspec

    options: dict[str, Any] = {}
    try:
        if _WEB.match(url):
            import aiohttp

            # Its default is five minutes for a whole file, however fast the download is.
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
    """Return whether a URL is a folder; URLs of web servers are taken for files."""
    if _WEB.match(url):
        return False
    storage, path = open_storage(url)
    try:
        return bool(storage.isdir(path))
    except Exception:  # each storage has its own errors; the file gets an error row
        return False


def is_folder(path: str) -> bool:
    """Return whether a path or a URL is a folder."""
    return is_remote_folder(path) if is_remote(path) else os.path.isdir(path)


def list_remote(url: str, *, all_files: bool = False) -> Iterator[tuple[str, str | None]]:
    """Yield the files below a URL, folder by folder in name order; or the URL itself if it is not a folder.

    Args:
        url: Folder or file in object storage.
        all_files: Whether to take every file, whatever its name.

    Yields:
        A URL, and the kind for which it is skipped, as in a folder on disk; None for files that may be videos.
    """
    if not is_remote_folder(url):
        open_storage(url)  # rejects unknown kinds of storage
        yield url, None
        return
    storage, path = open_storage(url)
    for folder, folder_names, names in storage.walk(path):

        def full_url(name: str, folder: str = folder) -> str:
            return str(storage.unstrip_protocol(f"{folder.rstrip('/')}/{name}"))

        folder_names.sort()  # the names left in this list are searched next
        if not all_files:
            for name in list(folder_names):
                if kind := kind_of_folder(name):
                    folder_names.remove(name)
                    yield full_url(name), kind
        yield from ((full_url(name), None if all_files else kind_of_file(name)) for name in sorted(names) if name)


@contextmanager
def local_copy(url: str, *, max_bytes: int) -> Iterator[str]:
    """Download a file for decoding, as decoders read local files only; yield the path of the copy.

    Args:
        url: URL of the file.
        max_bytes: Maximum size of the file.

    Raises:
        VideoError: `not_found` if it is missing or cannot be downloaded; `too_large`, before the download if the size
            is known; `timeout` if the download is too slow; `not_a_video` if it is a web page.
    """
    if _VIDEO_SITE.match(url):
        raise _a_page(url)
    storage, path = open_storage(url)
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-") as folder:
        suffix = _SUFFIX.search(re.split(r"[?#]", path)[0] if _WEB.match(url) else path)
        copy = Path(folder) / f"clip{suffix[0] if suffix else ''}"
        try:
            with _opened(storage, path, url, max_bytes) as source, open(copy, "wb") as target:
                _copy(source, target, url, max_bytes)
            if _WEB.match(url) and _is_page(copy):
                raise _a_page(url)
        except VideoError:
            raise
        except FileNotFoundError as error:
            raise VideoError("not_found", f"There is no file {url}.") from error
        except TimeoutError as error:
            raise _too_slow(url) from error
        except Exception as error:  # each storage has errors of its own
            why = f"{type(error).__name__}: {error}"
            if "Timeout" in type(error).__name__:  # fsspec and aiohttp have timeouts that are not a TimeoutError
                raise _too_slow(url) from error
            raise VideoError(
                "not_found", f"{url} cannot be fetched ({why}); check the address, the network and your credentials."
            ) from error
        yield str(copy)


def _opened(storage: Any, path: str, url: str, max_bytes: int) -> Any:
    """Open the stored file, unless its size is known to be too large."""
    if not _WEB.match(url):
        if (size := storage.size(path)) is not None and size > max_bytes:
            raise _too_large(url, size, max_bytes)
        return storage.open(path, "rb")
    # One request, as not every server supports ranges or HEAD requests.
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
        if seconds > _SILENCE_SECONDS and copied < _MIN_BYTES_PER_SECOND * seconds:
            raise _too_slow(url)
        target.write(chunk)


def _is_page(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(_PAGE_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE)


def _a_page(url: str) -> VideoError:
    return VideoError(
        "not_a_video",
        f"{url} is a web page, not a video file. Download the video first (yt-dlp does that for many sites), then give "
        "the file.",
    )


def _too_large(url: str, size: int, max_bytes: int) -> VideoError:
    return VideoError("too_large", f"{url} has {size:,} bytes; the limit is {max_bytes:,}.")


def _too_slow(url: str) -> VideoError:
    return VideoError(
        "timeout",
        f"The download of {url} is too slow: nothing for {_SILENCE_SECONDS:g} s, or less than "
        f"{_MIN_BYTES_PER_SECOND:,} bytes per second. Download it yourself and give the file.",
    )
