"""Frames that are in no file: pictures that a browser sends, and a camera. Both are decoded in confined processes."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import ERROR_CODES, UsageError, VideoError
from nonlocal_video.video import _wire
from nonlocal_video.video._child import DecoderProcess, DiedIdleError
from nonlocal_video.video._ended import DecoderEndedError
from nonlocal_video.video._messages import ended_error
from nonlocal_video.video.limits import DecodeLimits

MAX_PICTURES = 64
"""Most pictures in one request."""
MAX_PICTURE_BYTES = 1 << 20
FIRST_FRAME_SECONDS = 10.0
"""Longest wait for a camera's next frame."""
CAMERA_FORMAT = "v4l2"
_CAMERA = re.compile(r"\d+|/dev/video\d+")
_PICTURES_A_PROCESS = 100_000
"""Number of pictures after which the process is replaced, as libraries leak."""

Frame = NDArray[np.uint8]
"""RGB (height, width, 3)."""


class PictureReader:
    """Decodes JPEG and WebP pictures in a confined process; safe to use from several threads, which take turns."""

    def __init__(self, limits: DecodeLimits | None = None) -> None:
        """Create a reader, without starting its process.

        Args:
            limits: Limits for a picture.
        """
        self._limits = limits or DecodeLimits(timeout_seconds=10, max_pixels=4_000_000)
        self._lock = threading.Lock()
        self._process: DecoderProcess | None = None
        self._num_read = 0

    def read(self, pictures: Sequence[bytes]) -> list[Frame]:
        """Return the pixels of pictures, each (H, W, 3) RGB.

        Raises:
            VideoError: A picture is damaged, of another kind, or too large; none of them is returned.
        """
        if len(pictures) > MAX_PICTURES or any(len(one) > MAX_PICTURE_BYTES for one in pictures):
            most = f"{MAX_PICTURES} pictures of {MAX_PICTURE_BYTES} bytes each"
            raise VideoError("too_large", f"At most {most} can be read at once; send smaller or fewer ones.")
        with self._lock:
            try:
                return self._read(pictures)
            except DecoderEndedError as error:
                self._end()
                raise ended_error(error.ending, "a picture", self._limits) from None
            except BaseException as error:
                # After a picture that cannot be read it waits for the next request; else its state is unknown.
                if not isinstance(error, VideoError) or error.code in ("internal", "out_of_memory"):
                    self._end()
                raise

    def _read(self, pictures: Sequence[bytes]) -> list[Frame]:
        process = self._taken_by({"count": len(pictures)})
        found = []
        for picture in pictures:
            process.seconds_left = self._limits.timeout_seconds
            process.send(_wire.FRAME, picture)
            found.append(_receive(process, self._limits)[1])
        self._num_read += len(pictures)
        return found

    def _taken_by(self, request: dict[str, Any]) -> DecoderProcess:
        """Give a request to the process; one that died while idle is replaced once."""
        if self._num_read >= _PICTURES_A_PROCESS:
            self._end()
        for is_last in (False, True):
            if self._process is None:
                self._process = DecoderProcess(self._limits, serves="_live_worker.serve_pictures")
            try:
                self._process.request(request, seconds=self._limits.timeout_seconds)
                break
            except DiedIdleError:
                self._end()
                if is_last:
                    raise VideoError(
                        "decoder_crashed", "The process that decodes pictures ended twice; try again."
                    ) from None
        assert self._process is not None
        return self._process

    def _end(self) -> None:
        self._num_read = 0
        if self._process is not None:
            self._process.close()
            self._process = None

    def close(self) -> None:
        """End the process; the next picture starts another."""
        with self._lock:
            self._end()

    @property
    def confined(self) -> tuple[str, ...]:
        """Restrictions that the kernel enforces on the process; empty before the first picture."""
        return () if self._process is None else self._process.confined


class Camera:
    """A camera on Linux (Video4Linux); iterating gives its frames with their times, as they come.

    Example:
        >>> with Camera("0") as camera:
        ...     seconds, frame = next(iter(camera))
    """

    def __init__(self, name: str, *, limits: DecodeLimits | None = None, input_format: str = CAMERA_FORMAT) -> None:
        """Open a camera.

        Args:
            name: Its number, or its device, such as `/dev/video0`.
            limits: Limits for its frames.
            input_format: FFmpeg's name of what gives the frames.

        Raises:
            VideoError: `not_found`; there is no such camera, or it cannot be opened.
            UsageError: This system's cameras cannot be read.
        """
        self.name = name
        self._device = camera_device(name) if input_format == CAMERA_FORMAT else name
        self._limits = limits or DecodeLimits()
        if input_format == CAMERA_FORMAT:
            check_camera(name)
        try:
            self._process = DecoderProcess(
                self._limits, serves="_live_worker.serve_camera", argument=f"{input_format}:{self._device}"
            )
        except VideoError as error:
            if error.code != "not_found":
                raise
            reason = error.message
            raise VideoError(
                "not_found", f"{self._device}: {reason}; check its permissions, and that nothing else uses it."
            ) from None

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        """Yield seconds since the first frame, and the frame, until the camera fails.

        Raises:
            VideoError: It gives no more frames.
        """
        first: float | None = None
        while True:
            self._process.seconds_left = FIRST_FRAME_SECONDS
            try:
                header, frame = _receive(self._process, self._limits)
            except DecoderEndedError:
                raise VideoError(
                    "timeout", f"{self._device}: it gave no picture for {FIRST_FRAME_SECONDS:g} s; plug it in again."
                ) from None
            except VideoError as error:
                raise VideoError(error.code, f"{self._device}: {error.message}; check the camera.") from None
            stamp = header.get("seconds")
            seconds = float(stamp) if isinstance(stamp, (int, float)) else time.monotonic()
            first = seconds if first is None else first
            yield seconds - first, frame

    @property
    def confined(self) -> tuple[str, ...]:
        """Restrictions that the kernel enforces on the process that decodes the frames."""
        return self._process.confined

    def close(self) -> None:
        """Give the camera back."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_camera(source: str) -> bool:
    """Return whether a source names a camera, by number or device, and not a file."""
    return _CAMERA.fullmatch(source) is not None


def camera_device(name: str) -> str:
    """Return the device of a camera: `0` is `/dev/video0`.

    Raises:
        UsageError: This system has no such devices.
    """
    if sys.platform != "linux":
        raise UsageError(f"{name!r} names a camera, and cameras are read on Linux only; give a video file.")
    return f"/dev/video{int(name)}" if name.isdigit() else name


def check_camera(name: str) -> None:
    """Check that a camera is there, before a model is loaded for it.

    Raises:
        VideoError: `not_found`.
        UsageError: This system's cameras cannot be read.
    """
    device = camera_device(name)
    if not Path(device).exists():
        others = ", ".join(sorted(str(path) for path in Path("/dev").glob("video[0-9]*"))) or "none"
        raise VideoError(
            "not_found",
            f"{device}: there is no such camera (found: {others}); plug one in, or in Docker add --device {device}.",
        )


def _receive(process: DecoderProcess, limits: DecodeLimits) -> tuple[dict[str, Any], Frame]:
    """Receive the header of a frame and its pixels."""
    kind, header = process.receive()
    if kind == _wire.ERROR:
        code = header.get("code")
        raise VideoError(code if code in ERROR_CODES else "internal", str(header.get("message")))
    height: Any = header.get("height")
    width: Any = header.get("width")
    is_size = isinstance(height, int) and isinstance(width, int) and 0 < height * width <= limits.max_pixels
    if kind != _wire.PLAN or not is_size or min(height, width) < 1:
        raise VideoError("internal", "the decoding process sent an invalid message; report it.")
    frame = np.empty((height, width, 3), dtype=np.uint8)
    if process.receive(frame.data.cast("B"))[0] != _wire.FRAME:
        raise VideoError("internal", "the decoding process sent an invalid message; report it.")
    return header, frame
