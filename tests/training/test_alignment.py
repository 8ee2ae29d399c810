"""Teacher and student see the same moments and the same square of each clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nonlocal_video.errors import UsageError
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.distillation.alignment import derive_view, frame_positions, same_span, viewing_spec

TEACHER = InputSpec(
    num_frames=64, frames_per_second=25.0, short_side=256, crop=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
STUDENT = InputSpec(
    num_frames=16, frames_per_second=6.25, short_side=128, crop=112, mean=(0.4, 0.45, 0.5), std=(0.2, 0.25, 0.3)
)


EVERY_4TH = list(range(2, 32, 4))


def at(spec: InputSpec, num_frames: int, rate: float) -> InputSpec:
    return replace(spec, num_frames=num_frames, frames_per_second=rate)


def small(spec: InputSpec, **changes: object) -> InputSpec:
    return replace(spec, short_side=20, crop=16, **changes)


def numbered(spec: InputSpec) -> Tensor:
    """Two clips whose frames show their own number, the second's a hundred higher; normalised as `spec` says."""
    numbers = torch.arange(spec.num_frames, dtype=torch.float32) + torch.tensor([[0.0], [100.0]])
    clips = numbers[:, None, :, None, None].expand(2, 3, spec.num_frames, spec.crop, spec.crop)
    return (clips - torch.tensor(spec.mean).view(3, 1, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1, 1)


def shown(clips: Tensor, spec: InputSpec) -> list[list[float]]:
    """The numbers again; every pixel of a frame has to show the same one."""
    plain = clips * torch.tensor(spec.std).view(3, 1, 1, 1) + torch.tensor(spec.mean).view(3, 1, 1, 1)
    torch.testing.assert_close(plain, plain[:, :1, :, :1, :1].expand_as(plain), rtol=1e-5, atol=1e-4)
    return [[round(value, 2) for value in row] for row in plain[:, 0, :, 0, 0].tolist()]


@pytest.mark.parametrize(
    ("source", "target", "indices"),
    [
        (TEACHER, STUDENT, list(range(2, 64, 4))),  # every fourth
        (TEACHER, TEACHER, list(range(64))),
        (TEACHER, replace(STUDENT, num_frames=8), list(range(18, 48, 4))),  # half the span: its middle
        (at(TEACHER, 8, 10.0), at(STUDENT, 4, 5.0), [1, 3, 5, 7]),
        # Rates that are no multiples: middles of three steps of 4/3 s, in frames of 1 s.
        (at(TEACHER, 4, 1.0), at(STUDENT, 3, 0.75), [0, 2, 3]),
        (replace(TEACHER, num_frames=32, frame_stride=2), replace(STUDENT, num_frames=8, frame_stride=8), EVERY_4TH),
    ],
)
def test_the_nearest_frames_are_taken(source: InputSpec, target: InputSpec, indices: list[int]) -> None:
    assert frame_positions(source, target) == indices
    source, target = small(source), replace(target, short_side=12, crop=8)
    derived = derive_view(numbered(source), source, target)
    assert derived.shape == (2, 3, target.num_frames, 8, 8)
    assert shown(derived, target) == [[*indices], [index + 100 for index in indices]]


def test_nearest_is_nearest() -> None:
    """Against a search through all frames, for rates that share no divisor."""
    source = replace(TEACHER, num_frames=61, frames_per_second=23.7)
    for num_frames, rate in ((17, 7.31), (5, 2.0), (61, 23.7), (30, 19.9)):
        target = replace(STUDENT, num_frames=num_frames, frames_per_second=rate)
        start = (source.span_seconds - target.span_seconds) / 2
        moments = start + (np.arange(num_frames) + 0.5) / rate
        distance = np.abs((np.arange(61)[None] + 0.5) / 23.7 - moments[:, None])
        chosen = distance[np.arange(num_frames), frame_positions(source, target)]
        np.testing.assert_allclose(chosen, distance.min(axis=1), atol=1e-9)


def test_the_square_is_made_smaller_as_pillow_does() -> None:
    source, target = (
        replace(TEACHER, num_frames=2, crop=48),
        replace(STUDENT, num_frames=2, frames_per_second=25.0, crop=20),
    )
    pixels = torch.rand(1, 3, 2, 48, 48, generator=torch.Generator().manual_seed(0))
    clips = (pixels - 0.5) / 0.5
    derived = derive_view(clips, source, target)
    assert torch.equal(clips, (pixels - 0.5) / 0.5)  # the teacher's view is still needed
    for frame in range(2):
        for channel in range(3):
            picture = Image.fromarray(pixels[0, channel, frame].numpy())
            resized = torch.from_numpy(np.array(picture.resize((20, 20), Image.Resampling.BILINEAR)))
            expected = (resized - target.mean[channel]) / target.std[channel]
            torch.testing.assert_close(derived[0, channel, frame], expected, rtol=0, atol=1e-5)


def test_the_same_view_costs_nothing_and_keeps_its_type() -> None:
    clips = numbered(small(TEACHER))
    assert derive_view(clips, small(TEACHER), replace(small(TEACHER), short_side=16)) is clips
    assert derive_view(clips.half(), small(TEACHER), replace(STUDENT, short_side=8, crop=8)).dtype == torch.float16


def test_the_shared_view_holds_both() -> None:
    assert viewing_spec(STUDENT, TEACHER) == TEACHER
    assert same_span(STUDENT, TEACHER)
    longer = replace(STUDENT, num_frames=20)  # 3.2 s
    view = viewing_spec(longer, TEACHER)
    assert view == replace(TEACHER, num_frames=80)
    assert not same_span(longer, TEACHER)
    assert frame_positions(view, TEACHER) == list(range(8, 72))
    assert frame_positions(view, longer) == list(range(2, 80, 4))
    fine = replace(STUDENT, num_frames=90, frames_per_second=30.0, short_side=320, crop=288)  # 3 s
    view = viewing_spec(fine, TEACHER)
    assert (view.num_frames, view.frames_per_second, view.short_side, view.crop) == (90, 30.0, 320, 288)
    assert (view.mean, view.std) == (TEACHER.mean, TEACHER.std)
    for other in (STUDENT, TEACHER, longer, fine):
        for one in (STUDENT, TEACHER, longer, fine):
            assert len(frame_positions(viewing_spec(one, other), one)) == one.num_frames
    strided = viewing_spec(
        replace(STUDENT, num_frames=16, frame_stride=5), replace(TEACHER, num_frames=32, frame_stride=2)
    )
    assert (strided.num_frames, strided.frame_stride) == (40, 2)


def test_what_cannot_be_had_is_refused() -> None:
    clips = numbered(small(TEACHER))
    source, target = small(TEACHER), replace(STUDENT, short_side=8, crop=8)
    with pytest.raises(UsageError, match=r"\(2, 3, 64, 16, 16\), should be \(N, 3, 64, 224, 224\)"):
        derive_view(clips, TEACHER, STUDENT)
    with pytest.raises(UsageError, match=r"17 frames at 6.25/s span more time than 64 at 25/s"):
        derive_view(clips, source, replace(target, num_frames=17))
    with pytest.raises(UsageError, match=r"Frames at 26/s cannot be taken from a view at 25/s"):
        derive_view(clips, source, replace(target, frames_per_second=26.0))
    with pytest.raises(UsageError, match="square of 17 pixels cannot be made from one of 16; frames are not enlarged"):
        derive_view(clips, source, replace(target, short_side=17, crop=17))
    with pytest.raises(UsageError, match=r"at 25/s and the other at one frame in 4; how they compare depends"):
        derive_view(clips, source, replace(target, frame_stride=4))
    with pytest.raises(UsageError, match="at one frame in 4 and the other at 25/s"):
        viewing_spec(replace(STUDENT, frame_stride=4), TEACHER)
