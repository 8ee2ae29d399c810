"""Reading of video frames at given times. All video files in this project are read here."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.video._child import DecoderProcess
from nonlocal_video.video._choice import DecoderChoice
from nonlocal_video.video._messages import no_memory_here, no_room_for_frames, printable_name
from nonlocal_video.video._session import Session
from nonlocal_video.video.info import FrameChunk, Frames, VideoInfo
from nonlocal_video.video.limits import DecodeLimits
from nonlocal_video.video.region import PixelBox

_MAX_REQUESTS_A_PROCESS = 400
"""Number of requests after which a process is replaced: libraries leak, and a new process costs a third of a second.

A file of a folder run takes two, one for its properties and one for its frames."""
_REPLACED_ABOVE_BYTES = 1 << 30
"""Resident memory after a file above which a process is replaced, on Linux."""

VideoPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class VideoReader:
    """Reader of videos in a child process, which is started when needed and replaced after trouble.

    Decoding never happens in the calling process. A library that hangs, crashes, prints or exhausts memory on a hostile
    file does so in a child that is killed on time, and the file gets a `VideoError` with a code.

    A reader may be used from several threads, one request at a time; parallel requests need more readers. After a fork
    the new process starts its own child.

    Example:
        >>> with VideoReader() as reader:
        ...     info = reader.probe("clip.mp4")
        ...     frames = reader.read("clip.mp4", [0.0, 0.5, 1.0])
        >>> info.width, info.height, info.fps
        (320, 240, 25.0)
        >>> frames.frames_thwc.shape, frames.frame_of_time
        ((3, 240, 320, 3), array([0, 1, 2]))
    """

    def __init__(self, *, decoder: DecoderChoice = "auto", limits: DecodeLimits | None = None) -> None:
        """Create a reader, without starting a process.

        Args:
            decoder: "auto" uses the decoder measured to be exact for each file, and PyAV if decord fails. "decord" has
                no fallback: its failures are errors.
            limits: Limits for one video.

        Raises:
            UsageError: If an argument is not of its kind.
        """
        if not isinstance(decoder, str) or decoder not in get_args(DecoderChoice):
            raise UsageError(f"{decoder = } should be one of {get_args(DecoderChoice)}.")
        if not isinstance(limits, DecodeLimits | None):
            raise UsageError(f"{limits = } should be a DecodeLimits, or None for its defaults.")
        self.decoder: DecoderChoice = decoder
        self.limits = limits or DecodeLimits()
        self._lock = threading.Lock()
        self._session_thread: int | None = None
        self._process: DecoderProcess | None = None
        self._process_requests = 0
        self._pid = os.getpid()

    def probe(self, path: VideoPath) -> VideoInfo:
        """Read the properties of a file, from its packets and its first picture.

        Raises:
            VideoError: If the file cannot be read, or no decoding process can be started.
            UsageError: If `path` is not a path.
        """
        session = self._session(path)
        try:
            return session.ask("probe").info
        except MemoryError:
            raise no_memory_here(session.path) from None
        finally:
            session.close()

    def frame_times(self, path: VideoPath) -> NDArray[np.float64]:
        """Return when each frame of a file begins to be shown, from its packets; no frame but the first is decoded.

        Returns:
            (num_frames,) seconds from the beginning of the file, never decreasing.

        Raises:
            VideoError: If the file cannot be read, or there is no decoding process to be had.
            UsageError: If `path` is no path.
        """
        session = self._session(path)
        try:
            return session.ask("frame_times").pts_seconds
        except MemoryError:
            raise no_memory_here(session.path) from None
        finally:
            session.close()

    def stream(
        self, path: VideoPath, times_seconds: Sequence[float], *, chunk_frames: int = 16, box: PixelBox | None = None
    ) -> FrameStream:
        """Decode the frames shown at the given times, a few at a time.

        Memory does not grow with the number of times; the child waits while the caller is busy. The reader accepts no
        other request until the stream is exhausted or closed.

        Args:
            path: The video file.
            times_seconds: Seconds from the beginning of the file, in any order, from 0 to the video's end. Times before
                the first picture give that picture.
            chunk_frames: Largest number of frames in a chunk.
            box: Top, left, bottom and right edge, in pixels, of the part of each frame to return; None is all of it.

        Raises:
            VideoError: If the file cannot be read, no decoding process can be started, or memory is short.
            UsageError: If a time is outside the video, or an argument is not of its kind.
        """
        try:
            whole = operator.index(chunk_frames)
        except TypeError:
            whole = 0
        if whole < 1:
            raise UsageError(f"{chunk_frames = } should be a whole number, at least 1.")
        times = _checked_times(times_seconds).tolist()  # before the session, which holds the reader
        return FrameStream(self._session(path), times, whole, box)

    def read(self, path: VideoPath, times_seconds: Sequence[float]) -> Frames:
        """Decode the frames shown at the given times, all at once; for many frames use `stream`.

        Args:
            path: The video file.
            times_seconds: Seconds from the beginning of the file, in any order, from 0 to the video's end.

        Returns:
            Each distinct frame once, (frames, height, width, 3), with the frame of each time.

        Raises:
            VideoError: If the file cannot be read, no decoding process can be started, or memory is short.
            UsageError: If a time is outside the video, or an argument is not of its kind.
        """
        times = _checked_times(times_seconds)
        with self.stream(path, times.tolist(), chunk_frames=len(times)) as stream:
            (chunk,) = stream
            return Frames(
                frames_thwc=chunk.frames_thwc,
                pts_seconds=chunk.pts_seconds,
                frame_of_time=stream.frame_of_time,
                info=stream.info,
            )

    @property
    def confined(self) -> tuple[str, ...]:
        """Restrictions that the kernel enforces on the running child process; empty before the first file."""
        return () if self._process is None else self._process.confined

    def close(self) -> None:
        """End the child process; the reader can still be used and would start another."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_process", None) is not None:
            self.close()

    def _session(self, path: VideoPath) -> Session:
        try:
            name = os.fsdecode(path)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{path = } should be the path of a video file ({error}).") from None
        try:
            absolute = os.path.abspath(name) if name else name  # an empty name is no file, not the working directory
        except OSError:
            message = f"{printable_name(name)}: the working folder was deleted; give the whole path."
            raise VideoError("not_found", message) from None
        if self._pid != os.getpid():  # in a fork: the lock and the child are the parent's
            self._lock, self._session_thread = threading.Lock(), None
            self._process, self._pid = None, os.getpid()
        if self._session_thread == threading.get_ident():
            raise UsageError("This thread still holds an open stream of this reader; exhaust or close it first.")
        self._lock.acquire()
        self._session_thread = threading.get_ident()
        return Session(absolute, self.decoder, self.limits, self._child, self.close, self._release)

    def _release(self) -> None:
        self._session_thread = None
        self._lock.release()

    def _child(self) -> DecoderProcess:
        if self._process is not None and (
            self._process_requests >= _MAX_REQUESTS_A_PROCESS or self._process.resident_bytes() > _REPLACED_ABOVE_BYTES
        ):
            self.close()
        if self._process is None:
            self._process = DecoderProcess(self.limits)
            self._process_requests = 0
        self._process_requests += 1
        return self._process


class FrameStream(Iterator[FrameChunk]):
    """Distinct frames in the order of their times; see `VideoReader.stream`.

    Attributes:
        frame_of_time: Index, among the frames of the stream, of the frame shown at each requested time, (times,).
        pts_seconds: Start of each frame in seconds from the beginning of the file, (frames,).
    """

    def __init__(
        self, session: Session, times_seconds: list[float], chunk_frames: int, box: PixelBox | None = None
    ) -> None:
        self._session = session
        self._box = box
        self._chunk_frames = chunk_frames
        self._position = 0
        try:
            plan = session.ask("stream", times_seconds, box)
            if box is not None:
                _check_box(box, plan.info)
        except MemoryError:
            session.close()
            raise no_memory_here(session.path) from None
        except BaseException:
            session.close()
            raise
        self.frame_of_time: NDArray[np.int64] = plan.frame_of_time
        self.pts_seconds: NDArray[np.float64] = plan.pts_seconds

    @property
    def info(self) -> VideoInfo:
        """Description of the file; its decoder and notes change when decord is given up."""
        return self._session.info

    def __len__(self) -> int:
        """Number of distinct frames."""
        return len(self.pts_seconds)

    def __next__(self) -> FrameChunk:
        start = self._position
        end = min(start + self._chunk_frames, len(self))
        if start == end:
            raise StopIteration
        try:
            frames_thwc = self._room_for(end - start)
            self._session.receive_frames(frames_thwc)
            self._position = end
            if end == len(self):
                self._session.finish()
                self.close()
        except BaseException:
            self._position = len(self)
            self.close()
            raise
        return FrameChunk(frames_thwc=frames_thwc, pts_seconds=self.pts_seconds[start:end])

    def _room_for(self, count: int) -> NDArray[np.uint8]:
        top, left, bottom, right = self._box or (0, 0, self.info.height, self.info.width)
        height, width = bottom - top, right - left
        try:
            return np.empty((count, height, width, 3), dtype=np.uint8)
        except (MemoryError, ValueError):  # ValueError: more than the address space
            raise no_room_for_frames(self._session.path, count, width, height) from None

    def close(self) -> None:
        """Release the reader for other requests; frames not taken are not decoded."""
        self._position = len(self) if self._session.is_open and hasattr(self, "pts_seconds") else self._position
        self._session.close()

    def __enter__(self) -> FrameStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_session"):
            self._session.close()


def _check_box(box: PixelBox, info: VideoInfo) -> None:
    top, left, bottom, right = box
    if not (0 <= top < bottom <= info.height and 0 <= left < right <= info.width):
        raise UsageError(
            f"{box = } should be the top, left, bottom and right edge of a part of this video's frames of "
            f"{info.width} x {info.height}."
        )


def _checked_times(times_seconds: object) -> NDArray[np.float64]:
    """Return times as (N,) float64; raise a UsageError with what they are instead."""
    try:
        given = np.asarray(times_seconds)
        # "O": fractions, decimals, and anything else that converts to a number. Text and dates do not.
        if given.dtype.kind not in "fiuO" or (given.dtype.kind == "O" and any(isinstance(t, str) for t in given.flat)):
            raise TypeError(f"{given.dtype} is not a kind of number")
        times = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # RuntimeError: a tensor on its graph
        raise UsageError(f"times_seconds should be a list of seconds ({error}).") from None
    if times.ndim != 1 or len(times) == 0:
        raise UsageError(f"times_seconds has shape {times.shape}, should be a list with at least one time.")
    if not np.isfinite(times).all():
        raise UsageError(f"times_seconds has {times[~np.isfinite(times)][0]}; every time should be a finite number.")
    return times
