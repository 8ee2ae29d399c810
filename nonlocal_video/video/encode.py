"""Writing of frames as a video that every browser plays."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import OutputError, UsageError

# From this height on, players take unmarked video for BT.709; it is marked, but not every player reads the mark.
_HD_HEIGHT = 720
_BT709, _BT601 = 1, 6  # ISO/IEC 23091-4: matrix, primaries and transfer alike (6 is SMPTE 170M)
# Common rates of encoders and players, as fractions with small numbers. Frames with longer durations use a clock of
# milliseconds, shorter ones that of MPEG.
_USUAL_RATES = (1, 240)
_SLOW_TICKS_A_SECOND, _FAST_TICKS_A_SECOND = 1000, 90_000
_NOMINAL_RATE = 25
MAX_SECONDS_A_FRAME = 100_000
"""Longest duration of a frame: a longer one has more ticks than MP4's 31 bits can count."""


class VideoWriter:
    """Writer of H.264 in MP4, one frame at a time; the file appears under its name only when it is complete.

    Each frame is shown for 1/fps seconds, the last one too, so that the file lasts exactly as long as its frames: 64
    frames at 0.2 per second last 320 s. Colours are 4:2:0 with limited range, the index comes first (so that a browser
    can start before the end is loaded), and frames of odd size are padded with a copy of their last row or column.

    Example:
        >>> with VideoWriter("out.mp4", fps=25) as writer:
        ...     writer.write(np.zeros((240, 320, 3), np.uint8))
    """

    def __init__(self, path: str | os.PathLike[str], *, fps: float | Fraction, crf: float = 20) -> None:
        """Create a writer; the size of the video is that of the first frame.

        Args:
            path: The .mp4 file to write; an existing one is replaced.
            fps: Frames per second, from one frame in 100,000 seconds to 90,000 frames in one.
            crf: Quality of x264, from 0 (lossless) to 51; about 6 less doubles the size.

        Raises:
            UsageError: If an argument is out of range, or the path does not end in .mp4.
        """
        if not 1 / MAX_SECONDS_A_FRAME <= fps <= _FAST_TICKS_A_SECOND:
            raise UsageError(
                f"fps = {float(fps):g} should be from {1 / MAX_SECONDS_A_FRAME:g} to {_FAST_TICKS_A_SECOND}: no MP4 "
                f"shows a frame for more than {MAX_SECONDS_A_FRAME:,} seconds, or more frames in one."
            )
        if not 0 <= crf <= 51:
            raise UsageError(f"{crf = } should be from 0 to 51.")
        self._path = os.fspath(path)
        if not self._path.lower().endswith(".mp4"):
            raise UsageError(f"path = {self._path!r} should end in .mp4; the video is written as MP4.")
        slowest, fastest = _USUAL_RATES
        is_usual = slowest <= fps <= fastest
        rate = Fraction(fps).limit_denominator(1001) if is_usual else Fraction(fps)
        self._nominal_rate = rate if is_usual else Fraction(_NOMINAL_RATE)  # for the encoder's planning only
        self._tick = (
            1 / rate if is_usual else Fraction(1, _SLOW_TICKS_A_SECOND if fps < slowest else _FAST_TICKS_A_SECOND)
        )
        self._ticks_a_frame = 1 / (rate * self._tick)
        self._crf = crf
        self._container: Any = None
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()
        self._num_frames = 0
        self._temporary_path = ""

    def write(self, frame_hwc: NDArray[np.uint8]) -> None:
        """Append one RGB frame (H, W, 3).

        Raises:
            UsageError: If the frame is not uint8, or differs in shape from the first.
            OutputError: If the file cannot be written: the folder has vanished, the disk is full.
        """
        if frame_hwc.dtype != np.uint8 or frame_hwc.ndim != 3 or frame_hwc.shape[2] != 3:
            raise UsageError(f"frame_hwc is {frame_hwc.dtype} {frame_hwc.shape}, should be uint8 (H, W, 3).")
        if self._container is None:
            self._open(frame_hwc.shape)
        if frame_hwc.shape != self._shape:
            raise UsageError(f"frame_hwc has shape {frame_hwc.shape}, should be {self._shape} like the first frame.")
        import av

        height, width = frame_hwc.shape[:2]
        even = np.pad(frame_hwc, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        colours = self._stream.codec_context.colorspace
        frame = frame.reformat(format="yuv420p", dst_colorspace=colours, dst_color_range=1, interpolation="BICUBIC")
        frame.pts, frame.time_base = self._start_of(self._num_frames), self._tick
        self._num_frames += 1
        self._mux(frame)

    def close(self) -> None:
        """Complete the file and move it to its name.

        Raises:
            UsageError: If no frame was written.
            OutputError: If the file cannot be written.
        """
        if self._container is None:
            raise UsageError(f"No frame was written to {os.path.basename(self._path)!r}; a video has at least one.")
        self._mux(None)
        with self._writing():
            self._container.close()
            self._container = None
            os.replace(self._temporary_path, self._path)
        self._temporary_path = ""

    def discard(self) -> None:
        """Stop and leave no file."""
        if self._container is not None:
            with contextlib.suppress(Exception):  # the error that led here is the one to report
                self._container.close()
            self._container = None
        if self._temporary_path:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary_path)
            self._temporary_path = ""

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def _start_of(self, number: int) -> int:
        return round(number * self._ticks_a_frame)

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            # Without a duration the last frame would last as long as the one before, and a single frame no time.
            packet.duration = max(1, round(self._ticks_a_frame))
            with self._writing():
                self._container.mux(packet)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn errors of the disk into this project's own; the message has no path, as visitors of the page see it."""
        try:
            yield
        except OSError as error:
            name = os.path.basename(self._path)
            raise OutputError(
                f"{name!r} cannot be written: {error.strerror or error}. Make room, or use another folder."
            ) from error

    def _open(self, shape: tuple[int, ...]) -> None:
        import av

        # In the same folder, so that the last step is a rename; not from `tempfile`, whose files are private.
        folder, name = os.path.split(os.path.abspath(self._path))
        if not os.path.isdir(folder):
            raise UsageError(f"path = {self._path!r} lies in a folder that does not exist; make it first.")
        self._temporary_path = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.part")
        with self._writing():
            self._container = av.open(self._temporary_path, "w", format="mp4", options={"movflags": "+faststart"})
        options = {"crf": str(self._crf), "preset": "veryfast"}
        if self._tick * self._ticks_a_frame > 1:
            options["bf"] = "0"  # MP4 has 31 bits for the time between decoding and display of a frame
        self._stream = stream = self._container.add_stream("libx264", rate=self._nominal_rate, options=options)
        self._shape = shape
        stream.height, stream.width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = self._tick
        colours = _BT709 if stream.height >= _HD_HEIGHT else _BT601
        context.colorspace = context.color_primaries = context.color_trc = colours
        context.color_range = 1  # limited
        context.thread_count = 2


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[NDArray[np.uint8]],
    *,
    fps: float | Fraction,
    crf: float = 20,
) -> None:
    """Write RGB frames (H, W, 3) as H.264 in MP4; see `VideoWriter`.

    Raises:
        UsageError: If an argument or a frame is not allowed, or there are no frames.
        OutputError: If the file cannot be written.
    """
    with VideoWriter(path, fps=fps, crf=crf) as writer:
        for frame_hwc in frames:
            writer.write(frame_hwc)
