"""Sampling by time: where the views lie, and that they fit any frame rate."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numbered_clips
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pytorchvideo.data.clip_sampling import ConstantClipsPerVideoSampler
from torchvision.datasets.samplers import UniformClipSampler
from torchvision.datasets.video_utils import VideoClips

from nonlocal_video.errors import UsageError
from nonlocal_video.models.card import ClipPlacement as CardClipPlacement
from nonlocal_video.models.card import FramePlacement as CardFramePlacement
from nonlocal_video.models.card import InputSpec
from nonlocal_video.models.card import ShortClips as CardShortClips
from nonlocal_video.video import VideoInfo, VideoReader, plan_views
from nonlocal_video.video.sampling import ClipPlacement, FramePlacement, ShortClips


def video(duration_seconds: float, fps: float = 25.0) -> VideoInfo:
    return VideoInfo(
        container="mov",
        codec="h264",
        width=320,
        height=240,
        rotation_degrees=0,
        num_frames=max(1, round(duration_seconds * fps)),
        fps=fps,
        start_seconds=0.0,
        duration_seconds=duration_seconds,
        has_edit_list=False,
        decoder="pyav",
    )


def test_one_view_is_centred() -> None:
    (view,) = plan_views(video(10.0), num_frames=4, frames_per_second=2.0)
    assert (view.start_seconds, view.end_seconds, view.looped) == (4.0, 6.0, False)
    assert view.times_seconds == (4.25, 4.75, 5.25, 5.75)


def test_several_views_go_from_the_beginning_to_the_end() -> None:
    views = plan_views(video(10.0), num_frames=4, frames_per_second=2.0, num_clips=5)
    assert [view.start_seconds for view in views] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert views[-1].end_seconds == 10.0
    first, last = plan_views(video(10.0), num_frames=4, frames_per_second=2.0, num_clips=2)
    assert (first.start_seconds, last.start_seconds) == (0.0, 8.0)


def test_a_part_of_the_video_is_all_there_is() -> None:
    (view,) = plan_views(video(10.0), num_frames=4, frames_per_second=2.0, start_seconds=1.0, end_seconds=4.0)
    assert (view.start_seconds, view.end_seconds) == (1.5, 3.5)
    views = plan_views(video(10.0), num_frames=4, frames_per_second=2.0, num_clips=3, start_seconds=7.0)
    assert [view.start_seconds for view in views] == [7.0, 7.5, 8.0]


def test_a_short_clip_is_looped() -> None:
    (view,) = plan_views(video(1.0), num_frames=6, frames_per_second=4.0)
    assert view.looped
    assert (view.start_seconds, view.end_seconds) == (0.0, 1.0)
    assert view.times_seconds == (0.125, 0.375, 0.625, 0.875, 0.125, 0.375)
    (part,) = plan_views(video(9.0), num_frames=6, frames_per_second=4.0, start_seconds=2.0, end_seconds=3.0)
    assert part.looped
    assert part.times_seconds == tuple(2.0 + time for time in view.times_seconds)
    assert all(other == view for other in plan_views(video(1.0), num_frames=6, frames_per_second=4.0, num_clips=3))


def test_a_short_clip_is_held_at_its_last_frame() -> None:
    (view,) = plan_views(video(1.0, 4.0), num_frames=6, frames_per_second=4.0, short_clips="hold_last_frame")
    assert (view.filled, view.looped) == ("hold_last_frame", False)
    assert (view.start_seconds, view.end_seconds) == (0.0, 1.0)
    assert view.times_seconds == (0.125, 0.375, 0.625, 0.875, 0.875, 0.875)
    (part,) = plan_views(
        video(9.0, 4.0),
        num_frames=6,
        frames_per_second=4.0,
        start_seconds=2.0,
        end_seconds=3.0,
        short_clips="hold_last_frame",
    )
    assert part.times_seconds == tuple(2.0 + time for time in view.times_seconds)  # the part's last, not the next one


def test_a_short_clip_is_spread_over_the_view() -> None:
    (view,) = plan_views(video(1.0, 4.0), num_frames=8, frames_per_second=4.0, short_clips="spread")
    assert (view.filled, view.looped) == ("spread", False)
    assert view.times_seconds == tuple((i + 0.5) / 8 for i in range(8))


@pytest.mark.parametrize("short_clips", get_args(ShortClips))
def test_a_clip_that_is_long_enough_is_not_filled(short_clips: ShortClips) -> None:
    for seconds in (10.0, 1.5, 1.5 - 1e-6):
        arguments = {"num_frames": 6, "frames_per_second": 4.0, "num_clips": 3}
        views = plan_views(video(seconds), **arguments, short_clips=short_clips)
        assert views == plan_views(video(seconds), **arguments)
        assert {view.filled for view in views} == {None}


def test_views_that_go_round_can_only_loop() -> None:
    with pytest.raises(UsageError, match="short_clips = 'spread' should be 'loop'"):
        plan_views(
            video(1.0), num_frames=6, frames_per_second=4.0, clip_placement="wrapping_parts", short_clips="spread"
        )
    grey = (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="short_clips = 'hold_last_frame' should be 'loop'"):
        InputSpec(8, 4.0, 64, 56, grey, grey, clip_placement="wrapping_parts", short_clips="hold_last_frame")


def test_a_clip_that_fits_but_for_rounding_is_not_looped() -> None:
    (view,) = plan_views(video(2.56 - 1e-6), num_frames=64, frames_per_second=25.0)
    assert not view.looped
    assert max(view.times_seconds) < 2.56 - 1e-6


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "30"])
@pytest.mark.slow
def test_a_video_at_the_networks_rate_gives_each_frame_once(tmp_path: Path, reader: VideoReader, rate: str) -> None:
    frames = [numbered_clips.picture(number) for number in range(40)]
    for name in ("clip.mp4", "clip.mkv"):  # Matroska rounds times to milliseconds
        numbered_clips.encode(tmp_path / name, frames, "-c:v libx264 -pix_fmt yuv420p", rate=rate)
        info = reader.probe(tmp_path / name)
        (view,) = plan_views(info, num_frames=40, frames_per_second=info.fps)
        shown = reader.read(tmp_path / name, view.times_seconds)
        assert [numbered_clips.number_in(frame) for frame in shown.frames_thwc] == list(range(40))
        np.testing.assert_array_equal(shown.frame_of_time, np.arange(40))


@settings(deadline=None)
@given(
    duration=st.floats(0.03, 5000),
    num_frames=st.integers(1, 64),
    rate=st.floats(0.5, 60),
    num_clips=st.integers(1, 10),
    part=st.tuples(st.floats(0, 0.9), st.floats(0.01, 1)),
)
def test_times_lie_in_the_part_and_views_in_order(
    duration: float, num_frames: int, rate: float, num_clips: int, part: tuple[float, float]
) -> None:
    start = part[0] * duration
    end = min(duration, start + part[1] * duration)
    views = plan_views(
        video(duration),
        num_frames=num_frames,
        frames_per_second=rate,
        num_clips=num_clips,
        start_seconds=start,
        end_seconds=end,
    )
    assert len(views) == num_clips
    starts = [view.start_seconds for view in views]
    assert starts == sorted(starts)
    for view in views:
        assert len(view.times_seconds) == num_frames
        assert start <= view.start_seconds <= view.end_seconds <= end + 1e-9
        assert all(view.start_seconds <= time <= view.end_seconds + 1e-9 for time in view.times_seconds)
        if not view.looped and num_frames > 1:
            np.testing.assert_allclose(np.diff(view.times_seconds), 1 / rate, atol=1.1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "num_frames"),
        ({"num_clips": 0}, "num_clips"),
        ({"frames_per_second": 0.0}, "frames_per_second"),
        ({"frames_per_second": float("nan")}, "frames_per_second"),
        ({"start_seconds": -1.0}, "start_seconds"),
        ({"start_seconds": 10.0}, "start_seconds"),
        ({"start_seconds": float("nan")}, "start_seconds"),
        ({"start_seconds": 3.0, "end_seconds": 3.0}, "end_seconds"),
        ({"end_seconds": 0.0}, "end_seconds"),
        ({"end_seconds": 10.1}, "end_seconds"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, float], message: str) -> None:
    defaults = {"num_frames": 8, "frames_per_second": 4.0}
    with pytest.raises(UsageError, match=message):
        plan_views(video(10.0), **{**defaults, **arguments})


def test_the_printed_end_is_a_good_end() -> None:
    info = video(10.0104)  # printed as 10.010
    (view,) = plan_views(video(10.0096), num_frames=8, frames_per_second=4.0, end_seconds=10.010)
    assert view.end_seconds <= info.duration_seconds


def test_a_models_card_names_the_same_placements() -> None:
    assert get_args(CardClipPlacement) == get_args(ClipPlacement)
    assert get_args(CardFramePlacement) == get_args(FramePlacement)
    assert get_args(CardShortClips) == get_args(ShortClips)


def test_a_single_view_is_centred_whatever_the_placement() -> None:
    for placement in get_args(ClipPlacement):
        (single,) = plan_views(video(10.0), num_frames=4, frames_per_second=2.0, clip_placement=placement)
        assert (single.start_seconds, single.looped) == (4.0, False)


def shown_frames(times_seconds: tuple[float, ...], fps: float) -> list[int]:
    return [int(np.floor(time * fps)) for time in times_seconds]


# ---- Other projects' rules, written down from their code: frame numbers of `num_clips` views of `num_frames` frames,
# one in `stride`, of a video of `total` frames. Sources: nonlocal_video.video.sampling._clip_starts.


def video_nonlocal_net(total: int, num_frames: int, stride: int, num_clips: int) -> list[list[int]]:
    gap = np.float32(total) / np.float32(num_clips)
    starts = [int(gap * np.float32(clip)) % total for clip in range(num_clips)]
    return [[(start + i * stride) % total for i in range(num_frames)] for start in starts]


def mmaction2_0(total: int, num_frames: int, stride: int, num_clips: int) -> list[list[int]]:
    # in whole numbers; theirs are floats, in which 7.5 * 164 / 10 is a hair below 123
    free = max(total - num_frames * stride + 1, 0)
    starts = [(2 * clip + 1) * free // (2 * num_clips) for clip in range(num_clips)]
    return [[(start + i * stride) % total for i in range(num_frames)] for start in starts]


def mmaction2_1(total: int, num_frames: int, stride: int, num_clips: int) -> list[list[int]]:
    free = max(total - ((num_frames - 1) * stride + 1), 0)
    starts = np.round(np.arange(num_clips) * (free / float(num_clips - 1))).astype(int)
    return [[int(start + i * stride) % total for i in range(num_frames)] for start in starts]


def mmaction2_dense(total: int, num_frames: int, stride: int, num_clips: int) -> list[list[int]]:
    positions = max(1, 1 + total - num_frames * stride)
    starts = np.linspace(0, positions - 1, num=num_clips, dtype=int)
    return [[int(start + i * stride) % total for i in range(num_frames)] for start in starts]


SHAPES = st.sampled_from([(8, 8), (32, 2), (32, 4), (128, 1), (4, 16)])


@pytest.mark.parametrize(
    ("theirs", "placement", "loops"),
    [
        (video_nonlocal_net, "wrapping_parts", True),
        (mmaction2_0, "middle_of_parts", True),
        (mmaction2_1, "first_to_last_frame", True),
        (mmaction2_dense, "both_ends", False),
    ],
)
@settings(deadline=None)
@given(
    total=st.integers(20, 400),
    shape=SHAPES,
    num_clips=st.sampled_from([2, 3, 10]),
    fps=st.sampled_from([24000 / 1001, 25.0, 30000 / 1001, 30.0]),
)
def test_every_stride_th_frame_of_the_projects_that_count_frames(
    theirs: Callable[[int, int, int, int], list[list[int]]],
    placement: ClipPlacement,
    loops: bool,
    total: int,
    shape: tuple[int, int],
    num_clips: int,
    fps: float,
) -> None:
    num_frames, stride = shape
    assume(loops or total >= num_frames * stride)
    views = plan_views(
        video(total / fps, fps),
        num_frames=num_frames,
        frames_per_second=fps / stride,
        num_clips=num_clips,
        clip_placement=placement,
        frame_placement="start_of_steps",
    )
    assert [shown_frames(view.times_seconds, fps) for view in views] == theirs(total, num_frames, stride, num_clips)
    assert all(view.looped == (total < num_frames * stride) for view in views)
    assert all(0 <= view.start_seconds < view.end_seconds <= total / fps + 1e-9 for view in views)


def test_a_view_that_runs_over_the_end_goes_on_at_the_beginning() -> None:
    first, last = plan_views(
        video(5.0, 10.0),
        num_frames=4,
        frame_placement="start_of_steps",
        frames_per_second=1.0,
        num_clips=2,
        clip_placement="wrapping_parts",
    )
    assert (first.start_seconds, first.end_seconds, shown_frames(first.times_seconds, 10)) == (0, 4, [0, 10, 20, 30])
    assert (last.start_seconds, last.end_seconds, shown_frames(last.times_seconds, 10)) == (2.5, 5, [25, 35, 45, 5])
    assert not last.looped
    (_, part) = plan_views(
        video(9.0, 10.0),
        num_frames=4,
        frame_placement="start_of_steps",
        frames_per_second=1.0,
        num_clips=2,
        start_seconds=2.0,
        end_seconds=7.0,
        clip_placement="wrapping_parts",
    )
    assert shown_frames(part.times_seconds, 10) == [45, 55, 65, 25]  # continues where the part begins


@settings(deadline=None)
@given(total=st.integers(64, 500), num_frames=st.sampled_from([4, 8]), num_clips=st.sampled_from([2, 10]))
def test_left_of_parts_is_pyslowfasts_and_pytorchvideos(total: int, num_frames: int, num_clips: int) -> None:
    """Both decode from the first frame at or after `free * k / clips`, then take the linspace over 64 frames of it."""
    views = plan_views(
        video(total / 30, 30.0),
        num_frames=num_frames,
        frames_per_second=num_frames * 30 / 64,
        num_clips=num_clips,
        clip_placement="left_of_parts",
        frame_placement="both_ends",
    )
    sampler = ConstantClipsPerVideoSampler(Fraction(64, 30), num_clips)
    for view in views:
        clip = sampler(0, Fraction(total, 30), {})
        decoded = [i for i in range(total) if clip.clip_start_sec <= Fraction(i, 30) < clip.clip_end_sec]
        expected = [decoded[int(i)] for i in torch.linspace(0, len(decoded) - 1, num_frames)]
        assert shown_frames(view.times_seconds, 30.0) == expected


@settings(deadline=None)
@given(
    total=st.integers(1, 49),
    num_frames=st.sampled_from([4, 8]),
    num_clips=st.sampled_from([1, 2, 10]),
    fps=st.sampled_from([24000 / 1001, 25.0, 30000 / 1001, 30.0]),
)
def test_short_videos_as_pyslowfast_and_as_pytorchvideo_take_them(
    total: int, num_frames: int, num_clips: int, fps: float
) -> None:
    """PySlowFast: the linspace over 64 / 30 seconds, held at the last frame; pytorchvideo: over the video's frames."""
    clamped = np.minimum(np.linspace(0, 64 / 30 * fps - 1, num_frames), total - 1)
    expected: dict[ShortClips, list[int]] = {
        "hold_last_frame": [int(i + 1e-9) for i in clamped],
        "spread": [int(i) for i in torch.linspace(0, total - 1, num_frames)],
    }
    for short_clips, frames in expected.items():
        views = plan_views(
            video(total / fps, fps),
            num_frames=num_frames,
            frames_per_second=num_frames * 30 / 64,
            num_clips=num_clips,
            clip_placement="left_of_parts",
            frame_placement="both_ends",
            short_clips=short_clips,
        )
        assert len(views) == num_clips
        for view in views:
            assert view.filled == short_clips
            assert shown_frames(view.times_seconds, fps) == frames


@settings(deadline=None)
@given(
    total=st.integers(60, 400),
    num_clips=st.sampled_from([2, 5]),
    fps=st.sampled_from([15.0, 24000 / 1001, 25.0, 30000 / 1001, 30.0, 50.0]),
)
def test_both_ends_in_steps_are_torchvisions_clips(total: int, num_clips: int, fps: float) -> None:
    assume(total / fps > 17 / 15)  # torchvision leaves out shorter videos
    frames = torch.arange(total)
    clips, _ = VideoClips.compute_clips_for_video(frames, num_frames=16, step=1, fps=fps, frame_rate=15)
    all_clips = object.__new__(VideoClips)
    all_clips.clips = [clips]
    expected = [clips[index].tolist() for index in UniformClipSampler(all_clips, num_clips)]
    views = plan_views(
        video(total / fps, fps),
        num_frames=16,
        frames_per_second=15.0,
        num_clips=num_clips,
        clip_placement="both_ends_in_steps",
        frame_placement="start_of_steps",
    )
    assert [shown_frames(view.times_seconds, fps) for view in views] == expected


@settings(deadline=None)
@given(fps=st.sampled_from([24000 / 1001, 25.0, 30000 / 1001, 30.0, 50.0]), stride=st.integers(1, 8))
def test_frames_at_the_start_of_steps_are_every_stride_th(fps: float, stride: int) -> None:
    """mmaction2's SampleFrames, whose clips are `start + arange(num_frames) * stride`."""
    clip = video(400 / fps, fps)
    views = plan_views(
        clip, num_frames=8, frames_per_second=fps / stride, num_clips=2, frame_placement="start_of_steps"
    )
    assert shown_frames(views[0].times_seconds, fps) == [i * stride for i in range(8)]
    assert shown_frames(views[1].times_seconds, fps) == [400 - 8 * stride + i * stride for i in range(8)]


def test_frames_from_end_to_end_are_pyslowfasts() -> None:
    """PySlowFast's temporal_sampling: linspace(start, start + clip_size - 1, num_frames), cut to whole frames."""
    (view,) = plan_views(video(64 / 30, 30.0), num_frames=8, frames_per_second=30 / 8, frame_placement="both_ends")
    assert shown_frames(view.times_seconds, 30.0) == [int(i) for i in np.linspace(0, 63, 8)]
    assert not view.looped
