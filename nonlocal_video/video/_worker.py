"""The decoding process: serves requests until its pipe is closed. Nothing here runs in the parent.

Hostile files are read here, so this process limits itself: memory, processor time, the size of what libraries print,
where Linux allows it also network, writing and starting programs (`_confine`), and a kernel timer that ends the process
even if a library holds the interpreter's lock in an endless loop.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.video import _wire
from nonlocal_video.video._confine import confine
from nonlocal_video.video._ended import Ending
from nonlocal_video.video._messages import ended_error, printable_name
from nonlocal_video.video._shared_frames import SharedFrames
from nonlocal_video.video.limits import DecodeLimits

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_GRACE_SECONDS = 10.0  # delay of the kernel's timer after the parent's limit
_MAX_PRINTED_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1


def main(parent_pid: int, limits_json: str, shared_descriptor: int) -> None:
    """Serve requests from standard input on standard output, both of which are hidden from libraries."""
    requests, replies, limits = begin(parent_pid, limits_json)
    shared = _map(shared_descriptor)
    confined = confine()  # before any library starts a thread
    replies.write(_wire.MAGIC)
    try:
        import av

        from nonlocal_video.video import _probe, _pyav, _source
    except ImportError as error:
        message = f"Videos cannot be decoded here ({error}); install what is missing with: pip install av"
        _wire.write_json(replies, _wire.ERROR, {"code": "internal", "message": message})
        return
    del _probe, _pyav, _source
    # FFmpeg's messages go to standard error, the parent's temporary file.
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)
    _wire.write_json(replies, _wire.DONE, {"confined": confined})
    server = _Server(limits, requests, replies, shared)
    while True:
        try:
            kind, length = _wire.read_header(requests)
        except _wire.BrokenMessageError:
            return
        if kind == _wire.TAKEN:  # for a frame before an error
            continue
        assert kind == _wire.PLAN
        request = _wire.read_json(requests, length)
        # A kill before this hits an idle process, and the file is not to blame.
        _wire.write_message(replies, _wire.TAKEN)
        server.serve(request)


def begin(parent_pid: int, limits_json: str) -> tuple[IO[bytes], IO[bytes], DecodeLimits]:
    """Take over the pipes to the parent, and limit this process; return requests, replies and limits."""
    requests, replies = _take_over_pipes()
    limits = DecodeLimits(**json.loads(limits_json))
    _die_with_parent(parent_pid)
    _limit_resources(limits)
    return requests, replies, limits


def _take_over_pipes() -> tuple[IO[bytes], IO[bytes]]:
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)  # libraries' output goes where their errors go: to the parent's temporary file
    return requests, replies


def _die_with_parent(parent_pid: int) -> None:
    if sys.platform == "linux":
        # Works even while a library holds the interpreter's lock; fires when the thread that started us ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.name == "posix" and os.getppid() != parent_pid:
        os._exit(0)  # the parent died before the request


def _limit_resources(limits: DecodeLimits) -> None:
    if resource is None:
        return
    _lower_limit(resource.RLIMIT_CORE, 0)
    _lower_limit(resource.RLIMIT_FSIZE, _MAX_PRINTED_BYTES)
    if sys.platform == "linux":  # elsewhere the limit is absent, or counts shared libraries of the system
        _lower_limit(resource.RLIMIT_AS, limits.memory_bytes)


def _map(descriptor: int) -> SharedFrames | None:
    """Map the memory that is shared with the reader, if there is any."""
    if descriptor < 0:
        return None
    shared = SharedFrames(descriptor, is_writer=True)
    shared.close_descriptor()
    return shared


def _lower_limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


@contextmanager
def working(limits: DecodeLimits) -> Iterator[None]:
    """Have the kernel end this process if the block takes much longer than the parent's limit."""
    arm(limits)
    try:
        yield
    finally:
        disarm()


def arm(limits: DecodeLimits) -> None:
    """Start the kernel's timers: one of the clock, one of the processor's time."""
    seconds = limits.timeout_seconds + _GRACE_SECONDS
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM's default action ends the process
    if resource is not None:
        from nonlocal_video.video._source import DECODER_THREADS

        allowed = math.ceil(time.process_time() + seconds * (DECODER_THREADS + 1))
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        if hard == resource.RLIM_INFINITY or allowed < hard:
            resource.setrlimit(resource.RLIMIT_CPU, (allowed, hard))


def disarm() -> None:
    """Stop the timer of the clock."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Server:
    def __init__(
        self, limits: DecodeLimits, requests: IO[bytes], replies: IO[bytes], shared: SharedFrames | None
    ) -> None:
        self._limits = limits
        self._requests = requests
        self._replies = replies
        self._shared = shared
        self._num_shared = self._num_taken = 0  # frames of this request in shared memory, and those taken by the reader
        self._last_index: tuple[tuple[int, ...], Any] | None = None

    def serve(self, request: dict[str, Any]) -> None:
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        with working(self._limits):
            try:
                self._serve(request)
                return
            except VideoError as error:
                reply = {"code": error.code, "message": error.message}
            except UsageError as error:
                reply = {"code": "usage", "message": str(error)}
            except MemoryError:
                ended = ended_error(Ending("out_of_memory"), request["path"], self._limits)
                reply = {"code": ended.code, "message": ended.message}
            except BrokenPipeError:
                os._exit(0)
            except Exception as error:
                what = f"the decoder failed unexpectedly ({type(error).__name__}); report it"
                reply = {"code": "internal", "message": f"{printable_name(request['path'])}: {what}."}
        _wire.write_json(self._replies, _wire.ERROR, reply)

    def _serve(self, request: dict[str, Any]) -> None:
        import numpy as np

        from nonlocal_video.video import _decord, _pyav, _webp
        from nonlocal_video.video._frame_folder import FrameFolder
        from nonlocal_video.video._source import Source

        is_folder = self._limits.frames_per_second is not None and os.path.isdir(request["path"])
        source: Any = (FrameFolder if is_folder else Source)(request["path"], self._limits)
        try:
            index = self._index(source)
            decord, why_not = _decord.load() if request["decoder"] != "pyav" else (None, "")
            if why_not and index.info.decoder == "decord":
                note = f"decord does not load ({why_not.splitlines()[0]}): PyAV decoded it."
                index.info = dataclasses.replace(index.info, notes=(*index.info.notes, note))
            if request["decoder"] == "decord" and decord is None:
                raise UsageError("decoder = 'decord' needs decord: pip install decord, or leave the decoder to 'auto'.")
            if request["decoder"] == "decord":
                _decord.check_fitness(source, index)
            use_decord = decord is not None and (request["decoder"] == "decord" or index.info.decoder == "decord")
            if request["op"] in ("probe", "frame_times"):
                times = {} if request["op"] == "probe" else {"pts_seconds": index.shown_seconds.tolist()}
                self._send_plan({"info": _named(index.info, use_decord=use_decord), **times})
                return
            wanted, frame_of_time = _distinct_frames(index, np.asarray(request["times_seconds"], dtype=np.float64))
            if len(wanted) > _decord.MAX_FRAMES:
                use_decord = use_decord and request["decoder"] == "decord"
            plan: dict[str, Any] = {"info": _named(index.info, use_decord=use_decord)}
            plan["frame_of_time"] = frame_of_time.tolist()
            plan["pts_seconds"] = index.shown_seconds[wanted].tolist()
            self._send_plan(plan)
            wanted = wanted[request["skip"] :]
            notes: list[str] = []
            if use_decord:
                pictures = _decord.read_frames(decord, source, index, wanted)
            elif is_folder:
                pictures = source.read_frames(wanted)
            elif index.animation is not None:
                pictures = _webp.read_frames(source, index.animation, wanted)
            else:
                pictures = _pyav.read_frames(source, index, wanted, notes)
            top, left, bottom, right = request["box"] or (0, 0, index.info.height, index.info.width)
            self._num_shared = self._num_taken = 0
            slots = 0 if self._shared is None else self._shared.num_slots((bottom - top) * (right - left) * 3)
            for picture in pictures:
                part = picture[top:bottom, left:right]
                if slots and part.shape == (bottom - top, right - left, 3):
                    self._share(part, slots)
                else:
                    self._send(_wire.FRAME, np.ascontiguousarray(part).data.cast("B"))
            self._send(_wire.DONE, json.dumps({"notes": notes}).encode("ascii"))
        finally:
            source.close()

    def _index(self, source: Any) -> Any:
        from nonlocal_video.video._frame_folder import FrameFolder
        from nonlocal_video.video._index import index_folder
        from nonlocal_video.video._probe import build_index

        if self._last_index is None or self._last_index[0] != source.identity:
            self._last_index = None
            made = index_folder(source) if isinstance(source, FrameFolder) else build_index(source)
            self._last_index = source.identity, made
        return self._last_index[1]

    def _send_plan(self, plan: dict[str, Any]) -> None:
        payload = json.dumps(plan).encode("ascii")
        self._send(_wire.PLAN, payload)

    def _send(self, kind: bytes, payload: memoryview | bytes = b"") -> None:
        disarm()  # the parent may take its time
        _wire.write_message(self._replies, kind, payload)
        arm(self._limits)

    def _share(self, picture: Any, slots: int) -> None:
        """Write a frame to shared memory once a slot is free."""
        assert self._shared is not None
        disarm()  # the parent may take its time
        while self._num_shared - self._num_taken >= slots:
            try:
                kind, _ = _wire.read_header(self._requests)
            except _wire.BrokenMessageError:
                os._exit(0)
            assert kind == _wire.TAKEN
            self._num_taken += 1
        self._shared.slot(self._num_shared, picture.nbytes).reshape(picture.shape)[:] = picture
        self._num_shared += 1
        self._send(_wire.SHARED)


def _named(info: Any, *, use_decord: bool) -> dict[str, Any]:
    """Return the info as a dict, with the decoder that serves this request."""
    other = "pillow" if info.decoder == "pillow" else "pyav"
    return dataclasses.asdict(dataclasses.replace(info, decoder="decord" if use_decord else other))


def _distinct_frames(index: Any, times_seconds: Any) -> tuple[Any, Any]:
    """Return the frames to decode, and for each time the position among them of the frame shown then."""
    import numpy as np

    end = index.info.end_seconds
    tolerance = float(index.time_base) / 2
    outside = (times_seconds < -tolerance) | (times_seconds > end + tolerance) | ~np.isfinite(times_seconds)
    if outside.any():
        first = float(times_seconds[outside][0])
        raise UsageError(f"times_seconds has {first:g}, should lie between 0 and the video's end at {end:.3f} s.")
    return np.unique(np.maximum(index.frames_at(times_seconds), 0), return_inverse=True)
