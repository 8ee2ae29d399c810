"""Which moments of a video a network sees: sampling by time, whatever the video's frame rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from nonlocal_video.errors import UsageError
from nonlocal_video.video.info import VideoInfo

ClipPlacement = Literal["both_ends", "left_of_parts", "middle_of_parts"]
FramePlacement = Literal["middle_of_steps", "start_of_steps", "both_ends"]

_INTO_FRAME = Fraction(1, 100)  # of a frame; a time that names a frame lies this far inside it, safe from rounding


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
    clip_placement: ClipPlacement = "both_ends",
    frame_placement: FramePlacement = "middle_of_steps",
) -> tuple[View, ...]:
    """Choose the times at which a network looks at a video.

    A view spans `num_frames / frames_per_second` seconds. One view is centred; several are spread evenly from the
    beginning to the end. Their frames are those shown in the middle of `num_frames` equal parts of the span, so that a
    video at just that rate gives each of its frames once however its times are rounded:

        4 frames at 2/s from 1 s on: the parts begin at 1.0, 1.5, 2.0, 2.5, the times are 1.25, 1.75, 2.25, 2.75.

    Published weights were tested with other rules for both; `clip_placement` and `frame_placement` choose them.
    A clip shorter than the span is looped, as the published protocols do.

    Args:
        info: The video.
        num_frames: Frames of one view.
        frames_per_second: Their rate.
        num_clips: Number of views along time.
        start_seconds: Where the part to look at begins; the video's beginning if not given.
        end_seconds: Where it ends; the video's end if not given.
        clip_placement: Where several views begin: `both_ends`, from the part's beginning to its end; or, of as many
            equal stretches of the seconds that are free as there are views, `left_of_parts` or `middle_of_parts`.
        frame_placement: Frame of each step of a view: `middle_of_steps`, `start_of_steps`, or `both_ends`, which are
            the view's first and last frame and evenly spread ones between.

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
    within = _times_within(num_frames, span, Fraction(info.fps), frame_placement)
    for offset in _clip_starts(part, min(span, part), num_clips, clip_placement):
        times = [offset + time for time in within]
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


def _times_within(num_frames: int, span: Fraction, fps: Fraction, placement: FramePlacement) -> list[Fraction]:
    """Times of a view's frames, counted from its beginning; `fps` is the video's rate."""
    if placement == "middle_of_steps":
        return [(i + Fraction(1, 2)) * span / num_frames for i in range(num_frames)]
    first = _INTO_FRAME / fps
    steps, way = (num_frames, span) if placement == "start_of_steps" else (max(1, num_frames - 1), span - 1 / fps)
    return [first + i * max(way, Fraction(0)) / steps for i in range(num_frames)]


def _clip_starts(part: Fraction, span: Fraction, num_clips: int, placement: ClipPlacement) -> list[Fraction]:
    """Starts of the views, as pytorchvideo's sampler chooses them; a single one is centred.

    The sampler divides the free seconds by its number of clips, so its clips are at the left of equal parts: its first
    begins at 0 and its last one ends `1 / clips` of the free seconds before the end. Asked for twice as many, every
    second one is in the middle of such a part. Asked for one clip fewer than wanted it gives all but the last of clips
    that go from end to end.
    """
    from pytorchvideo.data.clip_sampling import ConstantClipsPerVideoSampler  # late: it loads torch

    def lefts(count: int) -> list[Fraction]:
        sampler = ConstantClipsPerVideoSampler(clip_duration=span, clips_per_video=count)
        return [sampler(0, part, {}).clip_start_sec for _ in range(count)]

    if num_clips == 1 or placement == "middle_of_parts":
        return lefts(2 * num_clips)[1::2]
    if placement == "left_of_parts":
        return lefts(num_clips)
    return [*lefts(num_clips - 1), part - span]
