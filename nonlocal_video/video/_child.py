"""The parent's side of one decoding process."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np

from nonlocal_video.errors import ERROR_CODES, VideoError
from nonlocal_video.video import _wire
from nonlocal_video.video._ended import DecoderEndedError, Ending, classify_ending, kernel_kills
from nonlocal_video.video._messages import cannot_start, did_not_start
from nonlocal_video.video._shared_frames import SharedFrames
from nonlocal_video.video.limits import DecodeLimits

_START_SECONDS = 60.0  # covers the import of NumPy and PyAV from a cold disk
_EXIT_SECONDS = 10.0
_ENDING_SECONDS = 1.0
_PIPE_BYTES = 1 << 20
_MAX_GREETING_BYTES = 1 << 16
_PRINTED_TAIL_BYTES = 4096

# Imported by the parent's own search path; `-m` would fail if the package is in the parent's working directory.
_BOOT = """
import sys
sys.path[:] = sys.argv[5:]
from nonlocal_video.video.{module} import {function}
{function}(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *filter(None, [sys.argv[4]]))
"""
FILES = "_worker.main"
"""Function of a process that reads files; it serves requests."""


class DiedIdleError(Exception):
    """The decoding process ended before it took a request, so the request's file is not to blame."""


class DecoderProcess:
    """One decoding process, and the thread that starts it, kills it on time and waits for its end.

    Linux kills the process when the *thread* that started it ends, not only with the whole parent. So a dedicated
    thread lives exactly as long as the process, and a reader may be used from short-lived threads.
    """

    def __init__(self, limits: DecodeLimits, *, serves: str = FILES, argument: str = "") -> None:
        """Start a process.

        Args:
            limits: What it may cost.
            serves: Its function, as `MODULE.FUNCTION` of this package.
            argument: A further argument of that function; none if empty.

        Raises:
            VideoError: It cannot be started, or says why it cannot serve.
        """
        self._limits, self._serves, self._argument = limits, serves, argument
        self._owner = os.getpid()
        self._condition = threading.Condition()
        self._deadline: float | None = None
        self._must_end = False
        self._is_ending = False
        self._timed_out = False
        self._killed_by_us = False
        self._started = threading.Event()
        self._ended = threading.Event()
        self._start_error: Exception | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._returncode: int | None = None
        self._printed_tail = b""
        self._kernel_kills = kernel_kills()
        self.seconds_left = 0.0
        self.confined: tuple[str, ...] = ()
        self._shared = SharedFrames.create()
        self._num_shared = 0  # frames of this request that were received through it
        try:
            self._printed = _new_print_file()
        except (OSError, MemoryError) as error:
            self._release_shared()
            raise cannot_start(error) from None
        try:
            threading.Thread(target=self._keep, name="nonlocal-video-decoder", daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # RuntimeError: the system has no more threads
            self._printed.close()
            self._release_shared()
            raise cannot_start(error) from None
        self._started.wait()
        if self._start_error is not None:
            self._release_shared()
            raise cannot_start(self._start_error) from None
        assert self._process is not None
        self._requests: IO[bytes] = cast(IO[bytes], self._process.stdin)
        self._replies: IO[bytes] = cast(IO[bytes], self._process.stdout)
        # Closed before the interpreter stops the thread that could do it; readers still alive are collected after that.
        atexit.register(self.close)
        self._widen_pipe()
        self._greet()

    def _release_shared(self) -> None:
        """Give descriptors back at once: the error's traceback keeps this object."""
        if self._shared is not None:
            self._shared.release()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    def resident_bytes(self) -> int:
        """Resident memory of the process where the system reports it (Linux), else 0."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def request(self, message: dict[str, Any], *, seconds: float) -> None:
        """Send a request whose answers may take so many seconds in all, and wait until it is taken.

        Raises:
            DiedIdleError: If the process ended before it took the request; another process can take it.
            DecoderEndedError: If it did not take the request in time.
        """
        self.seconds_left = seconds
        self._num_shared = 0
        self._kernel_kills = kernel_kills()
        try:
            with self._waiting():
                _wire.write_json(self._requests, _wire.PLAN, message)
                if _wire.read_header(self._replies) != (_wire.TAKEN, 0):
                    raise _wire.BrokenMessageError("An answer before the request was taken.")
        except DecoderEndedError as error:
            if error.ending.cause == "timeout":
                raise
            raise DiedIdleError from None

    def receive(self, into: memoryview | None = None) -> tuple[bytes, dict[str, Any]]:
        """Receive a message; a frame's pixels are written to `into`.

        Raises:
            DecoderEndedError: If the process ended, was too slow or sent an invalid message. It is then gone.
        """
        with self._waiting():
            kind, length = _wire.read_header(self._replies)
            if kind == _wire.FRAME:
                if into is None or length != into.nbytes:
                    raise _wire.BrokenMessageError("A frame of another size than announced.")
                _wire.read_exactly(self._replies, into)
                return kind, {}
            if kind == _wire.SHARED:
                if into is None or length or self._shared is None or not self._shared.num_slots(into.nbytes):
                    raise _wire.BrokenMessageError("A shared frame that was not expected.")
                np.copyto(np.frombuffer(into, np.uint8), self._shared.slot(self._num_shared, into.nbytes))
                self._num_shared += 1
                with contextlib.suppress(OSError):  # it has ended: the next message will not come
                    _wire.write_message(self._requests, _wire.TAKEN)
                return _wire.FRAME, {}
            return kind, _wire.read_json(self._replies, length) if length else {}

    def send(self, kind: bytes, payload: bytes) -> None:
        """Send a part of a request that was taken.

        Raises:
            DecoderEndedError: If the process ended meanwhile.
        """
        with self._waiting():
            _wire.write_message(self._requests, kind, payload)

    def close(self, *, is_ending: bool = False) -> None:
        """Kill the process if it is alive, and wait for its end.

        Args:
            is_ending: Whether it seems to have ended by itself; it then gets time to report how.
        """
        if self._owner != os.getpid():  # in a fork: the process is the parent's
            return
        atexit.unregister(self.close)
        with self._condition:
            self._must_end = True
            self._is_ending = is_ending
            self._condition.notify()
        self._ended.wait(_EXIT_SECONDS)
        for pipe in (self._requests, self._replies):
            with contextlib.suppress(OSError):
                pipe.close()
        self._release_shared()

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Have the process killed once the remaining seconds are over, and translate its end."""
        start = time.monotonic()
        self._set_deadline(start + self.seconds_left)
        try:
            yield
        except (_wire.BrokenMessageError, OSError):
            self.close(is_ending=True)
            raise DecoderEndedError(self._ending()) from None
        except BaseException:  # Ctrl-C: a half-read message cannot be resumed
            self.close()
            raise
        finally:
            self._set_deadline(None)
            self.seconds_left = max(0.0, self.seconds_left - (time.monotonic() - start))

    def _set_deadline(self, deadline: float | None) -> None:
        with self._condition:
            self._deadline = deadline
            self._condition.notify()

    def _ending(self) -> Ending:
        return classify_ending(
            self._returncode,
            self._printed_tail,
            timed_out=self._timed_out,
            killed_by_us=self._killed_by_us,
            kills_before=self._kernel_kills,
        )

    def _greet(self) -> None:
        """Wait until the process has loaded its libraries."""
        self.seconds_left = _START_SECONDS
        try:
            with self._waiting():
                seen = bytearray()
                while not seen.endswith(_wire.MAGIC):  # a site's start-up file may print before it
                    byte = self._replies.read(1)
                    if not byte or len(seen) > _MAX_GREETING_BYTES:
                        raise _wire.BrokenMessageError("No greeting.")
                    seen += byte
            kind, answer = self.receive()
        except DecoderEndedError as error:
            raise did_not_start(error.ending, self._last_printed_line()) from None
        if kind == _wire.ERROR:
            self.close()
            code = answer.get("code")
            raise VideoError(code if code in ERROR_CODES else "internal", str(answer.get("message")))
        self.confined = tuple(answer["confined"])

    def _last_printed_line(self) -> str:
        lines = self._printed_tail.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing."

    def _widen_pipe(self) -> None:
        if sys.platform == "linux":
            import fcntl

            set_size = getattr(fcntl, "F_SETPIPE_SZ", 1031)  # named since Python 3.10
            with contextlib.suppress(OSError):  # the user's pipes may be at their limit
                fcntl.fcntl(self._replies.fileno(), set_size, _PIPE_BYTES)

    def _keep(self) -> None:
        shared = self._shared
        module, _, function = self._serves.partition(".")
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *_interpreter_options(),
                    "-c",
                    _BOOT.format(module=module, function=function),
                    str(os.getpid()),
                    json.dumps(dataclasses.asdict(self._limits)),
                    str(-1 if shared is None else shared.descriptor),
                    self._argument,
                    *_search_path(),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                bufsize=0,
                pass_fds=() if shared is None else (shared.descriptor,),
                start_new_session=True,  # a process group that can be killed, without Ctrl-C from the terminal
                env={
                    "PATH": os.defpath,  # decord reads it on import, and fails without it
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "MALLOC_ARENA_MAX": "2",
                },
            )
        except (OSError, ValueError, MemoryError, subprocess.SubprocessError) as error:
            self._printed.close()
            self._start_error = error
            return
        finally:
            if shared is not None:
                shared.close_descriptor()
            self._started.set()
        self._wait_for_the_end()
        self._returncode = self._process.wait()
        self._printed.seek(0)
        self._printed_tail = self._printed.read()[-_PRINTED_TAIL_BYTES:]
        self._printed.close()
        self._ended.set()

    def _wait_for_the_end(self) -> None:
        assert self._process is not None
        with self._condition:
            while not self._must_end:
                seconds = None if self._deadline is None else self._deadline - time.monotonic()
                if seconds is not None and seconds <= 0:
                    self._timed_out = True
                    break
                self._condition.wait(seconds)
            is_ending = self._is_ending and not self._timed_out
        if is_ending:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDING_SECONDS)
                return
        self._killed_by_us = True
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()


def _new_print_file() -> IO[bytes]:
    """Open an unnamed file for what the process prints; on Linux it needs no temporary folder."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("nonlocal-video-printed", os.MFD_CLOEXEC), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _interpreter_options() -> list[str]:
    """Return options by which another interpreter encodes names as this one does and reads no more than it does."""
    flags = sys.flags
    read = {"-I": flags.isolated, "-E": flags.ignore_environment, "-s": flags.no_user_site, "-P": flags.safe_path}
    return ["-X", f"utf8={flags.utf8_mode}", *(option for option, is_set in read.items() if is_set)]


def _search_path() -> list[str]:
    """Return this interpreter's search path, independent of the working folder."""
    entries = []
    for entry in sys.path:
        with contextlib.suppress(OSError):  # the working directory was deleted, and relative paths with it
            entries.append(os.path.abspath(entry))
    return entries
