"""Temporal sampling: the times at which a network samples a video, for any frame rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from nonlocal_video.errors import PartError, UsageError
from nonlocal_video.video.info import VideoInfo

ClipPlacement = Literal[
    "both_ends", "both_ends_in_steps", "first_to_last_frame", "left_of_parts", "middle_of_parts", "wrapping_parts"
]
FramePlacement = Literal["middle_of_steps", "start_of_steps", "both_ends"]
ShortClips = Literal["loop", "hold_last_frame", "spread"]

FILLED: dict[ShortClips, str] = {
    "loop": "looped",
    "hold_last_frame": "held at its last frame",
    "spread": "spread over it",
}
"""Sentences about how a clip that is shorter than a view is filled."""


@dataclass(frozen=True)
class TemporalView:
    """One input of the network along time; seconds count from the beginning of the file."""

    start_seconds: float
    """Start of the view."""
    end_seconds: float
    """End of the view, or of the clip if the view wraps around."""
    times_seconds: tuple[float, ...]
    """Time of each frame of the input."""
    playback_seconds: float
    """Duration of these frames in playback: the span, even if a shorter clip is looped to fill it."""
    filled: ShortClips | None
    """Extension of a clip shorter than the network's span; None if it is not shorter."""

    @property
    def looped(self) -> bool:
        """Whether the clip is shorter than the network's span, and is repeated."""
        return self.filled == "loop"

    def __repr__(self) -> str:
        span = f"{self.start_seconds:.3f}-{self.end_seconds:.3f} s, {len(self.times_seconds)} times"
        return f"{type(self).__name__}({span}{f', {FILLED[self.filled]}' if self.filled else ''})"


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
    short_clips: ShortClips = "loop",
    whole_clip: bool = False,
) -> tuple[TemporalView, ...]:
    """Choose the times at which a network samples a video.

    A view spans `num_frames / frames_per_second` seconds. A single view is centred; several are spread evenly from the
    beginning to the end. Their frames are those shown in the middle of `num_frames` equal steps of the span, so that a
    video at exactly that rate yields each of its frames once even if its times are rounded:

        4 frames at 2/s from 1 s on: the steps begin at 1.0, 1.5, 2.0, 2.5, the times are 1.25, 1.75, 2.25, 2.75.

    Published weights were tested with other rules for both, which `clip_placement` and `frame_placement` select;
    `short_clips` selects how a clip shorter than the span is extended.

    Args:
        info: The video.
        num_frames: Number of frames of a view.
        frames_per_second: Sampling rate.
        num_clips: Number of views along time.
        start_seconds: Start of the part to sample; None, or a time before the first picture, is the first picture.
        end_seconds: End of the part; None is the video's end.
        clip_placement: Where several views start: `both_ends`, from the part's beginning to its end, or one of the
            rules that published weights were tested with, which count in frames; see `_clip_starts`.
        frame_placement: Frame of each step of a view: `middle_of_steps`, `start_of_steps`, or `both_ends`, the view's
            first and last frame and evenly spaced ones between them.
        short_clips: How a view longer than the part is filled: `loop`, by repeating the part (video-nonlocal-net,
            MMAction2's `SampleFrames`); `hold_last_frame`, by repeating its last frame (`temporal_sampling` of
            PySlowFast's slowfast/datasets/decoder.py); `spread`, by spreading the view's frames over the part
            (pytorchvideo's `uniform_temporal_subsample`).
        whole_clip: Whether a view spans the whole part, whatever the rate.

    Raises:
        UsageError: If the part is not inside the video, a number is out of range, several views would be the same, or
            `wrapping_parts` is combined with another filling than `loop`.

    Example:
        >>> info = VideoInfo("mp4", "h264", 320, 240, 0, 100, 25.0, 0.0, 4.0, False, "pyav")
        >>> (view,) = plan_views(info, num_frames=4, frames_per_second=2)
        >>> view.start_seconds, view.end_seconds, len(view.times_seconds)
        (1.0, 3.0, 4)
    """
    if num_frames < 1 or num_clips < 1:
        raise UsageError(f"{num_frames = } and {num_clips = } should be at least 1.")
    if not (math.isfinite(frames_per_second) and frames_per_second > 0):
        raise UsageError(f"{frames_per_second = } should be above 0.")
    if clip_placement == "wrapping_parts" and short_clips != "loop":
        raise UsageError(f"{short_clips = } should be 'loop' if clip_placement = 'wrapping_parts'.")
    start, end = _part(info, start_seconds, end_seconds)
    part = end - start
    if whole_clip and num_clips > 1:
        raise UsageError(
            f"{num_clips} clips would be the same: this model's frames are spread over the whole clip. Use --views 1x1."
        )
    # A video of 64 frames at 25/s may fall short of a span of 64 frames at 25/s by the rounding of its times; it fits.
    fps = Fraction(info.fps)
    span = _whole_frames(part, fps) / fps if whole_clip else num_frames / Fraction(frames_per_second)
    filled = short_clips if not whole_clip and span - part > Fraction(1, 1000) else None
    names_frames = frame_placement != "middle_of_steps"
    around = _whole_frames(part, fps) / fps if names_frames else part
    last_frame = (_whole_frames(part, fps) - Fraction(1, 2)) / fps
    views = []
    within = _times_within(num_frames, around if filled == "spread" else span, fps, frame_placement)
    for offset in _clip_starts(part, span, fps, num_frames, num_clips, clip_placement):
        times = [offset + time for time in within]
        if filled == "loop" or clip_placement == "wrapping_parts":
            times = [time % around for time in times]
        elif filled == "hold_last_frame":
            times = [min(time, last_frame) for time in times]
        if names_frames:
            times = [_middle_of_frame(time, fps) for time in times]
        times = [min(time, part) for time in times]
        views.append(
            TemporalView(
                start_seconds=float(start + offset),
                end_seconds=float(start + min(offset + span, part)),
                times_seconds=tuple(float(start + time) for time in times),
                playback_seconds=float(part if filled == "spread" else span),
                filled=filled,
            )
        )
    return tuple(views)


def _part(info: VideoInfo, start_seconds: float | None, end_seconds: float | None) -> tuple[Fraction, Fraction]:
    first, last = info.start_seconds, info.end_seconds
    start = first if start_seconds is None else start_seconds
    end = last if end_seconds is None else end_seconds
    if not 0 <= start < last:
        raise PartError(f"start_seconds = {start:g} should be from 0 to before the video's end at {last:.3f} s.")
    if 0 < end <= first:
        raise PartError(f"end_seconds = {end:g} should be after the video's first picture at {first:.3f} s.")
    if not start < end:
        raise UsageError(f"end_seconds = {end:g} should be after start_seconds = {start:g}.")
    if end > last + 0.0005:  # half of the last printed digit
        raise PartError(f"end_seconds = {end:g} should not be after the video's end at {last:.3f} s.")
    return Fraction(max(start, first)), Fraction(min(end, last))


def _times_within(num_frames: int, span: Fraction, fps: Fraction, placement: FramePlacement) -> list[Fraction]:
    """Return the times of a view's frames, counted from its beginning; `fps` is the video's rate."""
    if placement == "middle_of_steps":
        return [(i + Fraction(1, 2)) * span / num_frames for i in range(num_frames)]
    steps, way = (num_frames, span) if placement == "start_of_steps" else (max(1, num_frames - 1), span - 1 / fps)
    return [i * max(way, Fraction(0)) / steps for i in range(num_frames)]


def _middle_of_frame(time: Fraction, fps: Fraction) -> Fraction:
    """Return a time within the frame shown at `time`, as far from its limits as possible."""
    return (math.floor(_exact(time * fps)) + Fraction(1, 2)) / fps


def _clip_starts(
    part: Fraction, span: Fraction, fps: Fraction, num_frames: int, num_clips: int, placement: ClipPlacement
) -> list[Fraction]:
    """Return the seconds from the part's beginning to each view's; a single view is centred.

    All rules except `both_ends` are another project's, and count whole frames as its code does:

    - `left_of_parts`: PySlowFast (`get_start_end_idx` and the decoders of slowfast/datasets/decoder.py, which begin at
      the first frame at or after that time) and PyTorchVideo, tested with it (slowfast/datasets/ptv_datasets.py);
    - `middle_of_parts`: MMAction2 0.x (`SampleFrames._get_test_clips` of mmaction/datasets/pipelines/loading.py);
    - `first_to_last_frame`: the same in MMAction2 1.x (mmaction/datasets/transforms/loading.py), with the video's last
      frame as the last view's last frame;
    - `both_ends_in_steps`: torchvision (`VideoClips` at a frame rate, `UniformClipSampler`);
    - `wrapping_parts`: video-nonlocal-net (`DecodeClipFromVideoFileFlex` of customized_video_io.cc), with equal parts
    of
      all frames; a view that runs over the end wraps around to the beginning.
    """
    if num_clips == 1:
        return [max(part - span, Fraction(0)) / 2]
    if placement == "both_ends":
        return _spread(part, span, num_clips)
    frames = _whole_frames(part, fps)
    length = _exact(span * fps)
    step = length / num_frames
    starts: list[Fraction | int]
    if placement == "left_of_parts":
        starts = [math.ceil(start) for start in _lefts(frames, length, num_clips)]
    elif placement == "middle_of_parts":
        starts = [math.floor(start) for start in _lefts(frames + 1, length, 2 * num_clips)[1::2]]
    elif placement == "first_to_last_frame":
        starts = [round(start) for start in _spread(frames, length - step + 1, num_clips)]
    elif placement == "both_ends_in_steps":
        # torchvision takes every n-th frame, including the last, or rounds their number down if n is not whole.
        cut = math.ceil if step.denominator == 1 else math.floor
        in_steps = Fraction(cut(_exact(frames / step)))
        starts = [step * math.floor(start) for start in _spread(in_steps, Fraction(num_frames), num_clips)]
    else:
        starts = [math.floor(start) for start in _lefts(frames, Fraction(0), num_clips)]
    return [start / fps for start in starts]


def _whole_frames(seconds: Fraction, fps: Fraction) -> Fraction:
    return Fraction(max(1, round(seconds * fps)))


def _exact(frames: Fraction) -> Fraction:
    """Round off float errors of rates: 63.9999999 frames become 64."""
    whole = Fraction(round(frames))
    return whole if abs(frames - whole) < Fraction(1, 10**6) else frames


def _lefts(total: Fraction, span: Fraction, count: int) -> list[Fraction]:
    """Return the left ends of `count` equal parts of the free time, as pytorchvideo's sampler chooses them."""
    from pytorchvideo.data.clip_sampling import ConstantClipsPerVideoSampler  # imported here, since it loads torch

    sampler = ConstantClipsPerVideoSampler(clip_duration=span, clips_per_video=count)
    return [sampler(0, total, {}).clip_start_sec for _ in range(count)]


def _spread(total: Fraction, span: Fraction, count: int) -> list[Fraction]:
    """Return evenly spaced starts from one end to the other."""
    return [*_lefts(total, span, count - 1), max(total - span, Fraction(0))]
