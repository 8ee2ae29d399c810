"""The parent's handle on one decoding process."""

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
from typing import IO, Any, Literal, cast

from nonlocal_video.errors import VideoError
from nonlocal_video.video import _wire
from nonlocal_video.video.limits import DecodeLimits

_START_SECONDS = 60.0  # importing NumPy and PyAV from a cold disk
_EXIT_SECONDS = 10.0
_ENDING_SECONDS = 1.0
_PIPE_BYTES = 1 << 20
_MAX_GREETING_BYTES = 1 << 16
_PRINTED_TAIL_BYTES = 4096

_NO_MEMORY_WORDS = (b"bad_alloc", b"MemoryError", b"annot allocate memory")
# What Popen gives for a process that a signal ended; Windows knows none of these.
_TIMER_CODES = {-getattr(signal, name) for name in ("SIGALRM", "SIGXCPU") if hasattr(signal, name)}
_KILLED_CODES = {-getattr(signal, name) for name in ("SIGKILL",) if hasattr(signal, name)}

# Found by the parent's own search path, as `-m` would not be when the package lies in the parent's working directory.
_BOOT = """
import sys
sys.path[:] = sys.argv[3:]
from nonlocal_video.video._worker import main
main(int(sys.argv[1]), sys.argv[2])
"""

Cause = Literal["timeout", "out_of_memory", "decoder_crashed"]


class DecoderEndedError(Exception):
    """The decoding process ended before its work was done."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause: Cause = cause


class DecoderProcess:
    """One decoding process and the thread that starts it, kills it in time and waits for its end.

    Linux kills the process when the *thread* that started it ends, not only the whole parent, so that thread is one of
    our own which lives exactly as long as the process: a reader may be used from threads that come and go.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._owner = os.getpid()
        self._condition = threading.Condition()
        self._deadline: float | None = None
        self._must_end = False
        self._is_ending = False
        self._timed_out = False
        self._killed_by_us = False
        self._started = threading.Event()
        self._ended = threading.Event()
        self._start_error: OSError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._printed = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the keeper closes it)
        self._returncode: int | None = None
        self._printed_tail = b""
        self.seconds_left = 0.0
        self.confined: tuple[str, ...] = ()
        threading.Thread(target=self._keep, name="nonlocal-video-decoder", daemon=True).start()
        self._started.wait()
        if self._start_error is not None:
            message = f"The decoding process cannot be started ({self._start_error.strerror}); free some memory."
            raise VideoError("internal", message)
        assert self._process is not None
        self._requests: IO[bytes] = cast(IO[bytes], self._process.stdin)
        self._replies: IO[bytes] = cast(IO[bytes], self._process.stdout)
        # Before the interpreter stops the thread that could do it; what is left of readers is collected after that.
        atexit.register(self.close)
        self._widen_pipe()
        self._greet()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def resident_bytes(self) -> int:
        """Memory that it holds, where the system says so (Linux), else 0."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def request(self, message: dict[str, Any], *, seconds: float) -> None:
        """Send a request whose answers may make us wait for so many seconds in all."""
        self.seconds_left = seconds
        with self._waiting():
            _wire.write_json(self._requests, _wire.PLAN, message)

    def receive(self, into: memoryview | None = None) -> tuple[bytes, dict[str, Any]]:
        """Receive a message; a frame's pixels go to `into`.

        Raises:
            DecoderEndedError: If the process ended, was too slow or sent nonsense; it is gone then.
        """
        with self._waiting():
            kind, length = _wire.read_header(self._replies)
            if kind == _wire.FRAME:
                if into is None or length != into.nbytes:
                    raise _wire.BrokenMessageError("A frame of another size than announced.")
                _wire.read_exactly(self._replies, into)
                return kind, {}
            return kind, _wire.read_json(self._replies, length) if length else {}

    def close(self, *, is_ending: bool = False) -> None:
        """Kill the process, if it still lives, and wait for its end.

        Args:
            is_ending: It seems to have ended by itself; give it the time to say how.
        """
        if self._owner != os.getpid():  # we were forked off: it is not ours to end
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

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Have the process killed if we wait for longer than there are seconds left, and translate its end."""
        start = time.monotonic()
        self._set_deadline(start + self.seconds_left)
        try:
            yield
        except (_wire.BrokenMessageError, OSError):
            self.close(is_ending=True)
            raise DecoderEndedError(self._cause()) from None
        except BaseException:  # Ctrl-C: a message half read cannot be resumed
            self.close()
            raise
        finally:
            self._set_deadline(None)
            self.seconds_left = max(0.0, self.seconds_left - (time.monotonic() - start))

    def _set_deadline(self, deadline: float | None) -> None:
        with self._condition:
            self._deadline = deadline
            self._condition.notify()

    def _cause(self) -> Cause:
        if self._timed_out or self._returncode in _TIMER_CODES:
            return "timeout"
        printed_no_memory = any(words in self._printed_tail for words in _NO_MEMORY_WORDS)
        if printed_no_memory or (self._returncode in _KILLED_CODES and not self._killed_by_us):
            return "out_of_memory"  # a SIGKILL that is not ours is the kernel's, short of memory
        return "decoder_crashed"

    def _greet(self) -> None:
        """Wait until the process has loaded its libraries."""
        self.seconds_left = _START_SECONDS
        try:
            with self._waiting():
                seen = bytearray()
                while not seen.endswith(_wire.MAGIC):  # a site's start-up file may print before us
                    byte = self._replies.read(1)
                    if not byte or len(seen) > _MAX_GREETING_BYTES:
                        raise _wire.BrokenMessageError("No greeting.")
                    seen += byte
            kind, answer = self.receive()
        except DecoderEndedError as error:
            message = f"The decoding process did not start ({error.cause}): {self._last_printed_line()}"
            raise VideoError("internal", message) from None
        if kind == _wire.ERROR:
            self.close()
            raise VideoError("internal", str(answer.get("message")))
        self.confined = tuple(answer["confined"])

    def _last_printed_line(self) -> str:
        lines = self._printed_tail.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing."

    def _widen_pipe(self) -> None:
        if sys.platform == "linux":
            import fcntl

            set_size = getattr(fcntl, "F_SETPIPE_SZ", 1031)  # named since Python 3.10
            with contextlib.suppress(OSError):  # the user's pipes may already be as large as allowed
                fcntl.fcntl(self._replies.fileno(), set_size, _PIPE_BYTES)

    def _keep(self) -> None:
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _BOOT,
                    str(os.getpid()),
                    json.dumps(dataclasses.asdict(self._limits)),
                    *(os.path.abspath(entry) for entry in sys.path),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                bufsize=0,
                start_new_session=True,  # a group of its own to kill, and no Ctrl-C from the terminal
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
            )
        except OSError as error:
            self._start_error = error
            return
        finally:
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
