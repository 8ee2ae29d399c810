"""Words for failures that both the reader and its child process report."""

from __future__ import annotations

import os

from nonlocal_video.errors import ErrorCode, VideoError
from nonlocal_video.video.limits import DecodeLimits


def printable_name(path: str) -> str:
    """The file's own name, fit for a message: no folders of the server, no undecodable bytes, no control characters."""
    name = os.path.basename(path.rstrip("/")) or path or "''"
    return "".join(c if c.isprintable() else "?" for c in name)


def ended_error(cause: ErrorCode, path: str, limits: DecodeLimits) -> VideoError:
    """Say why a decoding process ended before its work was done."""
    sentence = {
        "timeout": f"decoding took longer than {limits.timeout_seconds:g} s; re-encode it or raise timeout_seconds.",
        "out_of_memory": (
            f"decoding needs more than {limits.memory_bytes / 1024**3:.1f} GiB; scale it down or raise memory_bytes."
        ),
    }.get(cause, "the decoder crashed on it; get the file again or re-encode it.")
    return VideoError(cause, f"{printable_name(path)}: {sentence}")
