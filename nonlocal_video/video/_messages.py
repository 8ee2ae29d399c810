"""Messages about failures that both the reader and its child process report."""

from __future__ import annotations

import errno
import os

from nonlocal_video.errors import ErrorCode, VideoError
from nonlocal_video.video._ended import Ending, kernel_kills
from nonlocal_video.video.limits import DecodeLimits


def printable_name(path: str) -> str:
    """Return the file's name for a message, without folders, undecodable bytes and control characters."""
    name = os.path.basename(path.rstrip("/")) or path or "''"
    return "".join(c if c.isprintable() else "?" for c in name)


def ended_error(ending: Ending, path: str, limits: DecodeLimits) -> VideoError:
    """Return the error for a decoding process that ended before its work was done."""
    if ending.cause == "timeout":
        sentence = f"decoding took longer than {limits.timeout_seconds:g} s; re-encode it or raise timeout_seconds."
    elif ending.killed_by and ending.cause == "out_of_memory":
        sentence = (
            "the kernel killed the decoding process because the machine or its container ran out of memory; free some, "
            "use fewer workers, or scale it down."
        )
    elif ending.cause == "out_of_memory":
        allowed = limits.memory_bytes / 1024**3
        sentence = f"decoding needs more than {allowed:.1f} GiB; scale it down or raise memory_bytes."
    elif ending.killed_by:
        unknown = ending.killed_by == "SIGKILL" and kernel_kills() is None
        perhaps = ", perhaps for lack of memory, which this system does not report" if unknown else ""
        sentence = (
            f"the decoding process was killed from outside ({ending.killed_by}{perhaps}) while decoding it; try again."
        )
    else:
        sentence = "the decoder crashed on it; get the file again or re-encode it."
    return VideoError(ending.cause, f"{printable_name(path)}: {sentence}")


def cannot_start(error: Exception) -> VideoError:
    """Return the error for a decoding process that could not be started."""
    number = getattr(error, "errno", None)
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return VideoError("out_of_memory", f"The decoding process cannot be started ({why}); free some memory.")
    if number in (errno.EMFILE, errno.ENFILE):
        do = "close files or readers that are not needed, or allow more open files: ulimit -n"
    elif number == errno.EAGAIN or isinstance(error, RuntimeError):
        do = "end processes or threads that are not needed, or allow more: ulimit -u, or the container's limit of pids"
    else:
        do = "check whether this Python can be run from here, and whether there is a temporary folder (TMPDIR)"
    return VideoError("internal", f"The decoding process cannot be started ({why}); {do}.")


def did_not_start(ending: Ending, last_words: str) -> VideoError:
    """Return the error for a decoding process that ended before it was ready."""
    if ending.killed_by:
        words = f"it was killed from outside ({ending.killed_by}); try again"
    else:
        words = last_words.rstrip(".")
    code: ErrorCode = "internal" if ending == Ending("decoder_crashed") else ending.cause
    return VideoError(code, f"The decoding process did not start ({ending.cause}): {words}.")


def no_room_for_frames(path: str, count: int, width: int, height: int) -> VideoError:
    """Return the error for frames that exceed the caller's own memory."""
    size = f"{count} frames of {width} x {height} take {count * width * height * 3 / 1e9:.2f} GB"
    return VideoError(
        "out_of_memory",
        f"{printable_name(path)}: {size}, which this process cannot allocate; read fewer at a time or free memory.",
    )


def no_memory_here(path: str) -> VideoError:
    """Return the error for a caller without memory, before there are frames."""
    return VideoError("out_of_memory", f"{printable_name(path)}: this process has no memory left; free some.")
