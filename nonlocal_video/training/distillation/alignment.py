"""One augmented view for teacher and student: the inputs of both are derived from the same pixels.

If the student saw another crop, or other colours, than its teacher, their outputs would not be comparable; with one
view for both, distillation is function matching (Beyer et al., CVPR 2022, "Knowledge distillation: a good teacher
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


def derive_view(clips: Tensor, source: InputSpec, target: InputSpec) -> Tensor:
    """Convert views made for one network into the input of another, on their device.

    In time, the frame nearest to the middle of each step is taken; a shorter span is the middle of the longer one:

        4 frames at 5/s from 8 frames at 10/s: the middles of the steps are 0.1, 0.3, 0.5 and 0.7 s. Frame 0, at 0.05 s,
        and frame 1, at 0.15 s, are equally near to the first; the later one is taken: frames 1, 3, 5, 7.

    In space, the square is resized bilinearly with antialiasing. Then mean and standard deviation are exchanged.

    Args:
        clips: (N, 3, T, S, S), normalised for `source`.
        source: Input that the clips were made for.
        target: Input to convert them to. Its `short_side` is not used: both networks see the same square.

    Returns:
        (N, 3, T', S', S') in the floating-point type of the clips; the same tensor if nothing changes.

    Raises:
        UsageError: The clips do not match `source`, or have too little time, too low a rate or too few pixels.
    """
    shape = (3, source.num_frames, source.crop, source.crop)
    if clips.dim() != 5 or clips.shape[1:] != shape:
        raise UsageError(f"clips have the shape {tuple(clips.shape)}, should be (N, {', '.join(map(str, shape))}).")
    indices = frame_positions(source, target)
    if target.crop > source.crop:
        raise UsageError(
            f"A square of {target.crop} pixels cannot be made from one of {source.crop}; frames are not enlarged. "
            f"Load the clips with viewing_spec."
        )
    if indices != list(range(source.num_frames)):
        clips = clips.index_select(2, torch.tensor(indices, device=clips.device))
    if target.crop != source.crop:
        clips = _resize(clips, target.crop)
    if (source.mean, source.std) != (target.mean, target.std):
        # (x * std + mean - mean') / std' in one pass
        old_mean, old_std, new_mean, new_std = (
            torch.tensor(values, dtype=clips.dtype, device=clips.device).view(3, 1, 1, 1)
            for values in (source.mean, source.std, target.mean, target.std)
        )
        clips = torch.addcmul((old_mean - new_mean) / new_std, clips, old_std / new_std)
    return clips


def viewing_spec(student: InputSpec, teacher: InputSpec) -> InputSpec:
    """Return the input from which both can be derived: the longer span, the higher rate, the larger square.

    It has the teacher's mean and standard deviation, and the ratio of crop to resized frame of the network with the
    larger crop. If the teacher has all of these, the result is its own input: for example with a teacher of 64 frames
    at 25/s and a student of 16 frames at 6.25/s, which both span 2.56 s. If the spans differ (see `same_span`), the
    network with the shorter span sees the middle.

    Raises:
        UsageError: One samples by time and the other by frame stride, so their spans depend on the clip.
    """
    _check_same_sampling(student, teacher)
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
    """Return whether both span the same time, to within one frame of the higher rate."""
    _check_same_sampling(student, teacher)
    return abs(_span(student) - _span(teacher)) * max(_rate(student), _rate(teacher)) <= 1 + _ROUNDING


def frame_positions(source: InputSpec, target: InputSpec) -> list[int]:
    """Return the indices of the frames of a view for `source` that make up a view for `target`.

    Raises:
        UsageError: The target has a longer span or a higher rate.
    """
    _check_same_sampling(source, target)
    if _rate(target) > _rate(source) * (1 + _ROUNDING):
        raise UsageError(
            f"Frames at {_rate_text(target)} cannot be taken from a view at {_rate_text(source)}. Load the "
            f"clips with viewing_spec."
        )
    spare = _span(source) - _span(target)
    if spare < -_ROUNDING * _span(source):
        raise UsageError(
            f"{target.num_frames} frames at {_rate_text(target)} span more time than {source.num_frames} at "
            f"{_rate_text(source)}. Load the clips with viewing_spec."
        )
    middles = (spare / 2 + (index + 0.5) / _rate(target) for index in range(target.num_frames))
    # A time on the border of two steps belongs to the later one, as in `ClipDataset`.
    return [min(math.floor(middle * _rate(source) + _ROUNDING), source.num_frames - 1) for middle in middles]


def _resize(clips: Tensor, size: int) -> Tensor:
    num_clips, _, num_frames, *_ = clips.shape
    frames = clips.transpose(1, 2).flatten(0, 1)  # (N, 3, T, S, S) -> (N * T, 3, S, S)
    # In float32, as not every device has the antialiased kernel for half precision.
    small = F.interpolate(frames.float(), size=(size, size), mode="bilinear", antialias=True).to(clips.dtype)
    return small.unflatten(0, (num_clips, num_frames)).transpose(1, 2).contiguous()


def _check_same_sampling(one: InputSpec, other: InputSpec) -> None:
    if (one.frame_stride is None) != (other.frame_stride is None):
        raise UsageError(
            f"One input is sampled at {_rate_text(one)} and the other at {_rate_text(other)}; how they compare "
            f"depends on the clip. Give both frames_per_second, or both a frame_stride."
        )


def _rate(spec: InputSpec) -> float:
    """Return the sampling rate, per second or per frame of the clip."""
    return spec.frames_per_second if spec.frame_stride is None else 1 / spec.frame_stride


def _span(spec: InputSpec) -> float:
    """Return the span, in seconds or in frames of the clip."""
    return spec.num_frames / _rate(spec)


def _rate_text(spec: InputSpec) -> str:
    return f"{spec.frames_per_second:g}/s" if spec.frame_stride is None else f"one frame in {spec.frame_stride}"
