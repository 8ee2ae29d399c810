"""Properties of a video, and frames read from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DecoderName = Literal["decord", "pyav", "pillow", "memory"]


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video stream, as its packets show them.

    Seconds are the player's, here and everywhere: in MP4, MOV, Matroska and WebM the file's own times, as browsers show
    them, elsewhere counted from the beginning of its earliest stream. If the pictures begin later, after the sound or
    after nothing, `start_seconds` is above 0, and times before it give the first picture.
    """

    container: str
    """FFmpeg's name of the container."""
    codec: str
    """FFmpeg's name of the codec."""
    width: int
    """Width in pixels, upright and as shown: pixels that are not square are taken into account."""
    height: int
    """Height in pixels, likewise."""
    rotation_degrees: int
    """Clockwise rotation that makes the stored picture upright: 0, 90, 180 or 270."""
    num_frames: int
    """Number of frames that exist and are shown (edit list applied), which may differ from the header's."""
    fps: float
    """Mean frame rate, num_frames / duration_seconds."""
    start_seconds: float
    """A player's time of the first shown picture; 0 for most."""
    duration_seconds: float
    """Time from there to the end of the pictures."""
    has_edit_list: bool
    """Whether an edit list hides or reorders frames."""
    decoder: DecoderName
    """Decoder of this file: decord, PyAV, Pillow for animated WebP, or "memory" for frames given as an array."""
    notes: tuple[str, ...] = ()
    """Sentences for the user: a truncated tail, a decoder that was given up."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or self.num_frames < 1:
            raise ValueError(f"{self.width = }, {self.height = } and {self.num_frames = } should be at least 1.")
        if self.rotation_degrees not in (0, 90, 180, 270):
            raise ValueError(f"{self.rotation_degrees = } should be 0, 90, 180 or 270.")

    @property
    def end_seconds(self) -> float:
        """End of the last picture, in seconds from the beginning of the file."""
        return self.start_seconds + self.duration_seconds


@dataclass(frozen=True)
class FrameChunk:
    """Some frames, upright RGB, in the order of their times."""

    frames_thwc: NDArray[np.uint8]
    """RGB frames (T, height, width, 3)."""
    pts_seconds: NDArray[np.float64]
    """Start of each frame in seconds from the beginning of the file, (T,)."""

    def __post_init__(self) -> None:
        shape = self.frames_thwc.shape
        if self.frames_thwc.dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3:
            raise ValueError(f"frames_thwc has {shape = } {self.frames_thwc.dtype}, should be uint8 (T, H, W, 3).")
        if self.pts_seconds.shape != (shape[0],):
            raise ValueError(f"{self.pts_seconds.shape = } should be ({shape[0]},): one time a frame.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(frames_thwc={self.frames_thwc.shape}, pts_seconds={self.pts_seconds.shape})"


@dataclass(frozen=True, repr=False)
class Frames(FrameChunk):
    """Frames shown at the requested times, each distinct frame once."""

    frame_of_time: NDArray[np.int64]
    """Index along T of the frame shown at each requested time, (times,)."""
    info: VideoInfo
    """Properties of the video."""
