"""Times of all frames of a file, and of the pictures of animations and folders. Runs in the decoding process only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import VideoError
from nonlocal_video.video._frame_folder import FrameFolder
from nonlocal_video.video._presentation import Presentation
from nonlocal_video.video._source import Source
from nonlocal_video.video._streams import StreamChoice
from nonlocal_video.video._webp import MILLISECONDS, WebpAnimation, read_animation
from nonlocal_video.video.info import VideoInfo


@dataclass(frozen=True)
class StreamIndex:
    """Times of all frames of a file, and all that is needed to read them."""

    info: VideoInfo
    """Description of the video."""
    time_base: Fraction
    """Seconds per tick."""
    pts: NDArray[np.int64]
    """Times of the shown frames in ticks, (num_frames,), never decreasing."""
    counted: bool
    """Whether the k-th intact frame of the decoder is frame k; otherwise frames are found by their PTS."""
    key_pts: NDArray[np.int64]
    """PTS of the keyframes in file order; empty if seeks are not reliable."""
    key_dts: NDArray[np.int64]
    """DTS of the keyframes."""
    cut_pts: frozenset[int | None]
    """PTS of packets that are incomplete."""
    stream_choice: StreamChoice | None
    """The stream that is read; None for an animation or a folder of pictures."""
    presentation: Presentation | None
    """Presentation of its frames; None likewise."""
    animation: WebpAnimation | None = None
    """A WebP animation, which FFmpeg does not read."""

    @property
    def decord_fault(self) -> str | None:
        """Reason why decord would show other pictures than a player; None if it would not."""
        if self.presentation is not None:
            return self.presentation.decord_fault
        return "it does not know WebP" if self.animation is not None else "it reads no folders"

    @property
    def shown_seconds(self) -> NDArray[np.float64]:
        """Start of each frame in seconds from the beginning of the file, (num_frames,)."""
        ticks = self.pts - self.pts[0]
        return self.info.start_seconds + ticks * self.time_base.numerator / self.time_base.denominator

    def frames_at(self, times_seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the indices of the frames shown at given seconds from the beginning of the file; -1 before the first.

        Containers round times to their ticks (1/3 s is 0.333 in Matroska, 2/3 s is 0.667), and a caller who asks for
        2/3 means the frame at 0.667. So times may be early by half a tick, but by no more than half a millisecond.
        """
        tick = float(self.time_base)
        forgiven_ticks = min(0.5, 0.0005 / tick) + 1e-6
        ticks = (times_seconds - self.info.start_seconds) / tick
        return np.searchsorted(self.pts - self.pts[0], ticks + forgiven_ticks, side="right") - 1


def index_webp(source: Source) -> StreamIndex:
    """Index an animated WebP.

    Raises:
        VideoError: If it cannot be read, or exceeds a limit.
    """
    animation = read_animation(source)
    ends = np.cumsum(animation.durations_ms, dtype=np.int64)
    size = animation.width, animation.height
    index = _index_pictures(source, "webp", size, Fraction(1, MILLISECONDS), np.append(0, ends))
    return replace(index, animation=animation)


def index_folder(source: FrameFolder) -> StreamIndex:
    """Index a folder of JPEGs: each is shown for the time that the frame rate gives.

    Raises:
        VideoError: If it is too long.
    """
    assert source.limits.frames_per_second is not None
    tick = 1 / Fraction(source.limits.frames_per_second).limit_denominator(1_000_000)
    bounds = np.arange(len(source.files) + 1, dtype=np.int64)
    return _index_pictures(source, "jpeg", source.size, tick, bounds, source.notes)


def _index_pictures(
    source: Source | FrameFolder,
    codec: str,
    size: tuple[int, int],
    time_base: Fraction,
    bounds: NDArray[np.int64],
    notes: tuple[str, ...] = (),
) -> StreamIndex:
    """Index pictures that Pillow reads; `bounds` are the starts in ticks and the end of the last, (num_frames + 1,)."""
    duration_seconds = float(int(bounds[-1]) * time_base)
    check_duration(source, duration_seconds)
    info = VideoInfo(
        container="webp" if codec == "webp" else "folder",
        codec=codec,
        width=size[0],
        height=size[1],
        rotation_degrees=0,
        num_frames=len(bounds) - 1,
        fps=(len(bounds) - 1) / duration_seconds,
        start_seconds=0.0,
        duration_seconds=duration_seconds,
        has_edit_list=False,
        decoder="pillow",
        notes=notes,
    )
    nothing = np.asarray((), dtype=np.int64)
    return StreamIndex(info, time_base, bounds[:-1], True, nothing, nothing, frozenset(), None, None)


def check_duration(source: Source | FrameFolder, seconds: float) -> None:
    """Refuse a video that is too long.

    Raises:
        VideoError: It is longer than the limit.
    """
    allowed = source.limits.max_duration_seconds
    if seconds > allowed:
        message = f"{source.name}: it lasts {seconds:,.0f} s but {allowed:,.0f} s are allowed"
        raise VideoError("too_long", f"{message}; cut it into parts or raise max_duration_seconds.")
