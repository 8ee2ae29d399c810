"""Download of a file over HTTP, resumed after interruptions.

Among libraries for downloads of data, pooch restarts after every interruption and compares whole hashes only, where
some publishers give 8 digits. So this uses requests directly, which also honours the proxy's environment variables.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
from requests.exceptions import ChunkedEncodingError
from urllib3.exceptions import NewConnectionError

from nonlocal_video.errors import ModelError
from nonlocal_video.io import refuse_link

ProgressCallback = Callable[[int, int | None], None]
"""Callback with the bytes received, and the size of the whole file where the server states it."""
Notify = Callable[[str], None]
"""Callback with sentences about the progress."""

_CHUNK_BYTES = 64 * 1024
_PASSING = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class RetryPolicy:
    """Waiting times and number of attempts of a download."""

    attempts: int = 4
    """Number of attempts."""
    connect_seconds: float = 10
    """Longest wait for a connection."""
    silence_seconds: float = 60
    """Longest time without a byte from the server."""
    pause_seconds: float = 1
    """Pause before the second attempt; it doubles before each further one."""


class TransferError(ModelError):
    """The file could not be downloaded; the part received is kept for the next attempt."""


class _PassingError(Exception):
    """A failure that is worth another attempt."""


def download(
    url: str,
    part: Path,
    *,
    policy: RetryPolicy | None = None,
    progress: ProgressCallback | None = None,
    notify: Notify | None = None,
) -> None:
    """Download `url` to `part`; bytes of an earlier call are kept if the server's file has not changed.

    The file `part`.json has the server's tag (its ETag, else the time of its last change). Without a tag a change of
    the file would go unnoticed, so every attempt starts from the first byte.

    Args:
        url: An http or https address.
        part: Path of the bytes. The caller checks them and moves the file to its final name.
        policy: Waiting times and number of attempts.
        progress: Called for every chunk received.
        notify: Called with the reason before another attempt.

    Raises:
        TransferError: If the server refuses, or all attempts failed.
        UsageError: If `part` is a link.
        OSError: If the file cannot be written.
    """
    policy = policy or RetryPolicy()
    for written in (part, _tag_path(part)):
        refuse_link(written, hard=True)
    with requests.Session() as session:
        for attempt in range(policy.attempts):
            try:
                _receive(session, url, part, policy, progress)
                return
            except (_PassingError, requests.ConnectionError, requests.Timeout, ChunkedEncodingError) as error:
                causes = _causes(error)
            except requests.RequestException as error:
                raise TransferError(f"{url} cannot be downloaded: {error}.") from error
            if attempt == 0 and any(isinstance(cause, NewConnectionError) for cause in causes):
                raise TransferError(f"{url} cannot be downloaded: no connection ({causes[-1]}).") from causes[0]
            if attempt + 1 < policy.attempts:
                pause = policy.pause_seconds * 2**attempt
                if notify is not None:
                    notify(f"{url}: {causes[-1]}; trying again in {pause:g} s.")
                time.sleep(pause)
    kept = f"; {part.stat().st_size:,} bytes are kept for the next time" if _tag_of_kept(part, url) else ""
    raise TransferError(f"{url} cannot be downloaded: {causes[-1]} ({policy.attempts} attempts{kept}).") from causes[0]


def discard(part: Path) -> None:
    """Remove the files of a download."""
    part.unlink(missing_ok=True)
    _tag_path(part).unlink(missing_ok=True)


def _receive(
    session: requests.Session, url: str, part: Path, policy: RetryPolicy, progress: ProgressCallback | None
) -> None:
    headers = {"Accept-Encoding": "identity"}  # offsets into a compressed response would count other bytes
    tag = _tag_of_kept(part, url)
    offset = part.stat().st_size if tag else 0
    if tag:
        headers |= {"Range": f"bytes={offset}-", "If-Range": tag}
    timeouts = (policy.connect_seconds, policy.silence_seconds)
    with session.get(url, headers=headers, stream=True, timeout=timeouts) as response:
        status = response.status_code
        if status in _PASSING:
            raise _PassingError(f"the server answered {status} {response.reason}")
        if tag and (status == 416 or (status == 206 and not _goes_on(response, offset, tag))):
            discard(part)  # it is not the beginning of the server's file
            _receive(session, url, part, policy, progress)
            return
        if status not in ((200, 206) if tag else (200,)):
            raise TransferError(f"{url} cannot be downloaded: the server answered {status} {response.reason}.")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise TransferError(f"{url} cannot be downloaded: a web page came instead (the network's log-in?).")
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        if status == 200:  # the whole file: nothing was here, or it has changed, or the server supports no ranges
            discard(part)
            offset = 0
            part.touch()
            _write_tag(part, url, "" if encoded else _tag(response))
        length = response.headers.get("Content-Length")
        total = None if length is None or encoded else offset + int(length)
        with open(part, "ab") as file:
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                offset += len(chunk)
                if progress is not None:
                    progress(offset, total)
        if total is not None and offset != total:  # urllib3 1 does not notice
            raise _PassingError(f"the connection was cut after {offset:,} of {total:,} bytes")


def _goes_on(response: requests.Response, offset: int, tag: str) -> bool:
    """Return whether the response continues the file marked by `tag` from that byte on."""
    begins = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    return begins and _tag(response) in ("", tag)


def _tag(response: requests.Response) -> str:
    etag: str = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # a weak tag may stand for files with different bytes
        return etag
    return response.headers.get("Last-Modified", "")


def _tag_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _write_tag(part: Path, url: str, tag: str) -> None:
    if tag:
        _tag_path(part).write_text(json.dumps({"url": url, "tag": tag}), "utf-8")


def _tag_of_kept(part: Path, url: str) -> str | None:
    """Return the tag of the file of which `part` is the beginning; None if there is nothing to resume."""
    if not part.is_file() or part.stat().st_size == 0:
        return None
    try:
        values = json.loads(_tag_path(part).read_text("utf-8"))
        return values["tag"] if values["url"] == url else None
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and its causes; the last is the system's or the server's own message."""
    causes = [error]
    while (inner := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(inner)
    return causes
