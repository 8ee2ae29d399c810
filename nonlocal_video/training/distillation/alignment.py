"""One augmented view for teacher and student: what each of them sees is derived from the same pixels.

A student that sees another crop, or other colours, than its teacher is asked for an answer to another question; with
one view for both, distillation is function matching (Beyer et al., CVPR 2022, "Knowledge distillation: a good teacher
is patient and consistent").
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nonlocal_video.errors import UsageError
from nonlocal_video.models.card import InputSpec

_ROUNDING = 1e-6


def derive_view(clips: Tensor, of: InputSpec, to: InputSpec) -> Tensor:
    """What a network sees of views that were made for another one, on the device where they are.

    In time, each frame is the one nearest to the middle of its step; a shorter span is the middle of the longer one:

        4 frames at 5/s of 8 frames at 10/s: the steps' middles are 0.1, 0.3, 0.5, 0.7 s; frame 1 lies at 0.15 s and is
        as near as frame 0; of two, the later one is taken: frames 1, 3, 5, 7.

    In space, the whole square is resized, bilinearly and smoothed. Then mean and deviation are exchanged.

    Args:
        clips: (N, 3, T, S, S), normalised as `of` says.
        of: What they were made for.
        to: What is wanted. Its `short_side` plays no part: both networks see the same square.

    Returns:
        (N, 3, T', S', S'), of the clips' floating type. The clips themselves if nothing has to be done.

    Raises:
        UsageError: The clips are not what `of` says, or do not have the time, rate or pixels that are wanted.
    """
    shape = (3, of.num_frames, of.crop, of.crop)
    if clips.dim() != 5 or clips.shape[1:] != shape:
        raise UsageError(f"clips have the shape {tuple(clips.shape)}, should be (N, {', '.join(map(str, shape))}).")
    places = frame_positions(of, to)
    if to.crop > of.crop:
        raise UsageError(
            f"A square of {to.crop} pixels is wanted of one with {of.crop}; frames are not enlarged. Load the clips as "
            f"viewing_spec says."
        )
    if places != list(range(of.num_frames)):
        clips = clips.index_select(2, torch.tensor(places, device=clips.device))
    if to.crop != of.crop:
        clips = _resize(clips, to.crop)
    if (of.mean, of.std) != (to.mean, to.std):
        # (x * std + mean - mean') / std' in one pass
        old_mean, old_std, new_mean, new_std = (
            torch.tensor(values, dtype=clips.dtype, device=clips.device).view(3, 1, 1, 1)
            for values in (of.mean, of.std, to.mean, to.std)
        )
        clips = torch.addcmul((old_mean - new_mean) / new_std, clips, old_std / new_std)
    return clips


def viewing_spec(student: InputSpec, teacher: InputSpec) -> InputSpec:
    """The view from which both can be derived: the longer span, the higher rate, the larger square.

    It has the teacher's mean and deviation, and the proportions of square and resized frame of the network with the
    larger square. The teacher's own spec comes out if it has all of that, as for a teacher of 64 frames at 25/s and a
    student of 16 frames at 6.25/s, which span 2.56 s both. Where the spans differ, the network with the shorter one
    sees the middle; `same_span` tells whether it does.

    Raises:
        UsageError: One samples by time and the other every n-th frame: how their spans compare depends on the clip.
    """
    _check_one_clock(student, teacher)
    larger = teacher if teacher.crop >= student.crop else student
    faster = teacher if _rate(teacher) >= _rate(student) else student
    span = max(_span(student), _span(teacher))
    return replace(
        larger,
        num_frames=math.ceil(span * _rate(faster) - _ROUNDING),
        frames_per_second=faster.frames_per_second,
        frame_stride=faster.frame_stride,
        mean=teacher.mean,
        std=teacher.std,
    )


def same_span(student: InputSpec, teacher: InputSpec) -> bool:
    """Whether both see the same seconds, to within a frame of the one with the higher rate."""
    _check_one_clock(student, teacher)
    return abs(_span(student) - _span(teacher)) * max(_rate(student), _rate(teacher)) <= 1 + _ROUNDING


def frame_positions(of: InputSpec, to: InputSpec) -> list[int]:
    """Which frames of a view make the other one, in order.

    Raises:
        UsageError: The other one is longer, or has the higher rate.
    """
    _check_one_clock(of, to)
    if _rate(to) > _rate(of) * (1 + _ROUNDING):
        raise UsageError(
            f"Frames at {_rate_text(to)} are wanted of a view at {_rate_text(of)}; frames are not invented. Load the "
            f"clips as viewing_spec says."
        )
    free = _span(of) - _span(to)
    if free < -_ROUNDING * _span(of):
        raise UsageError(
            f"{to.num_frames} frames at {_rate_text(to)} are wanted of {of.num_frames} at {_rate_text(of)}, which span "
            f"less time. Load the clips as viewing_spec says."
        )
    middles = (free / 2 + (place + 0.5) / _rate(to) for place in range(to.num_frames))
    # A moment on the border of two steps belongs to the later one, as in `ClipDataset`.
    return [min(math.floor(middle * _rate(of) + _ROUNDING), of.num_frames - 1) for middle in middles]


def _resize(clips: Tensor, size: int) -> Tensor:
    num_clips, _, num_frames, *_ = clips.shape
    frames = clips.transpose(1, 2).flatten(0, 1)  # (N, 3, T, S, S) -> (N * T, 3, S, S)
    # In float32, as not every device has the antialiased kernel for shorter types.
    small = F.interpolate(frames.float(), size=(size, size), mode="bilinear", antialias=True).to(clips.dtype)
    return small.unflatten(0, (num_clips, num_frames)).transpose(1, 2).contiguous()


def _check_one_clock(one: InputSpec, other: InputSpec) -> None:
    if (one.frame_stride is None) != (other.frame_stride is None):
        raise UsageError(
            f"One view is sampled at {_rate_text(one)} and the other at {_rate_text(other)}; how they compare depends "
            f"on the clip. Give both frames_per_second, or both a frame_stride."
        )


def _rate(spec: InputSpec) -> float:
    """Frames a second, or a frame of the clip."""
    return spec.frames_per_second if spec.frame_stride is None else 1 / spec.frame_stride


def _span(spec: InputSpec) -> float:
    """In seconds, or in frames of the clip."""
    return spec.num_frames / _rate(spec)


def _rate_text(spec: InputSpec) -> str:
    return f"{spec.frames_per_second:g}/s" if spec.frame_stride is None else f"one frame in {spec.frame_stride}"
