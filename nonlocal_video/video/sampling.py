"""Which moments of a video a network sees: sampling by time, whatever the video's frame rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from nonlocal_video.errors import UsageError
from nonlocal_video.video.info import VideoInfo


@dataclass(frozen=True)
class View:
    """One input of the network along time; seconds count from the first shown frame."""

    start_seconds: float
    end_seconds: float  # of what is seen: the end of the span, or of the clip where it is looped
    times_seconds: tuple[float, ...]  # one for each frame of the input
    looped: bool  # the clip is shorter than the network's span, so it is seen more than once

    def __repr__(self) -> str:
        span = f"{self.start_seconds:.3f}-{self.end_seconds:.3f} s, {len(self.times_seconds)} times"
        return f"{type(self).__name__}({span}{', looped' if self.looped else ''})"


def plan_views(
    info: VideoInfo,
    *,
    num_frames: int,
    frames_per_second: float,
    num_clips: int = 1,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> tuple[View, ...]:
    """Choose the times at which a network looks at a video.

    A view spans `num_frames / frames_per_second` seconds. One view is centred; several are spread evenly from the
    beginning to the end. Their frames are those shown in the middle of `num_frames` equal parts of the span, so that a
    video at just that rate gives each of its frames once however its times are rounded:

        4 frames at 2/s from 1 s on: the parts begin at 1.0, 1.5, 2.0, 2.5, the times are 1.25, 1.75, 2.25, 2.75.

    A clip shorter than the span is looped, as the published protocols do.

    Args:
        info: The video.
        num_frames: Frames of one view.
        frames_per_second: Their rate.
        num_clips: Number of views along time.
        start_seconds: Where the part to look at begins; the video's beginning if not given.
        end_seconds: Where it ends; the video's end if not given.

    Raises:
        UsageError: If the part is not inside of the video or a number is out of range.
    """
    if num_frames < 1 or num_clips < 1:
        raise UsageError(f"{num_frames = } and {num_clips = } should be at least 1.")
    if not (math.isfinite(frames_per_second) and frames_per_second > 0):
        raise UsageError(f"{frames_per_second = } should be above 0.")
    start, end = _part(info, start_seconds, end_seconds)
    part = end - start
    span = num_frames / Fraction(frames_per_second)
    # A video of 64 frames at 25/s may miss the span of 64 frames at 25/s by the rounding of its times; that is no loop.
    looped = span - part > Fraction(1, 1000)
    views = []
    for offset in _clip_starts(part, min(span, part), num_clips):
        times = [offset + (i + Fraction(1, 2)) / Fraction(frames_per_second) for i in range(num_frames)]
        times = [time % part if looped else min(time, part) for time in times]
        views.append(
            View(
                start_seconds=float(start + offset),
                end_seconds=float(start + offset + min(span, part)),
                times_seconds=tuple(float(start + time) for time in times),
                looped=looped,
            )
        )
    return tuple(views)


def _part(info: VideoInfo, start_seconds: float | None, end_seconds: float | None) -> tuple[Fraction, Fraction]:
    duration = info.duration_seconds
    start = 0.0 if start_seconds is None else start_seconds
    end = duration if end_seconds is None else end_seconds
    if not 0 <= start < duration:
        raise UsageError(f"start_seconds = {start:g} should be from 0 to before the video's end at {duration:.3f} s.")
    if not start < end:
        raise UsageError(f"end_seconds = {end:g} should be after start_seconds = {start:g}.")
    if end > duration + 0.0005:  # as good as what we print of it
        raise UsageError(f"end_seconds = {end:g} should not be after the video's end at {duration:.3f} s.")
    return Fraction(start), Fraction(min(end, duration))


def _clip_starts(part: Fraction, span: Fraction, num_clips: int) -> list[Fraction]:
    """Starts of the clips, as pytorchvideo's sampler chooses them.

    The sampler divides the free seconds by its number of clips, so its first clip begins at 0 and its last one ends
    `1 / clips` of the free seconds before the end. Asked for one clip fewer than wanted it gives all but the last,
    which begins where the free seconds end; for one clip the second of three is the centred one.
    """
    from pytorchvideo.data.clip_sampling import ConstantClipsPerVideoSampler  # late: it loads torch

    wanted = num_clips if num_clips > 1 else 3
    sampler = ConstantClipsPerVideoSampler(clip_duration=span, clips_per_video=wanted - 1)
    starts = [sampler(0, part, {}).clip_start_sec for _ in range(wanted - 1)]
    starts.append(part - span)
    return starts if num_clips > 1 else [starts[1]]
