"""What is known about a video, and the frames taken from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DecoderName = Literal["decord", "pyav", "pillow", "memory"]


@dataclass(frozen=True)
class VideoInfo:
    """A video stream as its packets describe it.

    Seconds are the player's, here and everywhere: 0 is where the file begins, that is where its earliest stream does.
    The sound often begins before the picture; then `start_seconds` is above 0, and what is asked of the time before is
    answered with the first picture. Where the picture comes first, it is 0, whatever times the file carries.
    """

    container: str
    codec: str
    width: int  # upright and as shown: pixels that are not square are taken into account
    height: int
    rotation_degrees: int  # clockwise turn that makes the stored picture upright: 0, 90, 180 or 270
    num_frames: int  # frames that are really there and shown (edit list applied), not what the header claims
    fps: float  # num_frames / duration_seconds
    start_seconds: float  # from the beginning of the file to its first shown picture; 0 for most
    duration_seconds: float  # from there to the end of the pictures
    has_edit_list: bool
    decoder: DecoderName  # the one that serves this file: Pillow animated WebP, "memory" frames handed over as an array
    notes: tuple[str, ...] = ()  # what a user should know: a truncated tail, a decoder that was given up

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or self.num_frames < 1:
            raise ValueError(f"{self.width = }, {self.height = } and {self.num_frames = } should be at least 1.")
        if self.rotation_degrees not in (0, 90, 180, 270):
            raise ValueError(f"{self.rotation_degrees = } should be 0, 90, 180 or 270.")

    @property
    def end_seconds(self) -> float:
        """Where the last picture ends, in seconds from the beginning of the file."""
        return self.start_seconds + self.duration_seconds


@dataclass(frozen=True)
class FrameChunk:
    """Some frames, upright RGB, in the order of their times."""

    frames_thwc: NDArray[np.uint8]  # (t, height, width, 3)
    pts_seconds: NDArray[np.float64]  # (t,) when each begins to be shown, from the beginning of the file

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
    """The frames shown at the times that were asked for, each distinct frame once.

    `frame_of_time[i]` is the position along T of the frame shown at the i-th time asked for.
    """

    frame_of_time: NDArray[np.int64]
    info: VideoInfo
