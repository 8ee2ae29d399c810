"""A window that slides over a long video: its answers are those of `classify`, its memory has a bound."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference import windows
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.sliding import slide
from nonlocal_video.inference.windows import plan_windows
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.info import VideoInfo

INFO = VideoInfo("mov", "h264", 96, 72, 0, 100, 25.0, 0.0, 4.0, False, "pyav")
SPEC = InputSpec(8, 10.0, 64, 48, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def clip(colour_clip: Callable[[int], Path]) -> Path:
    """62 frames of changing colours."""
    return colour_clip(62)


@pytest.fixture(scope="module")
def damaged(clip: Path) -> Path:
    """The same, with zeros over some of its last third."""
    content = bytearray(clip.read_bytes())
    place = len(content) * 2 // 3
    content[place : place + 600] = bytes(600)
    path = clip.with_name("damaged.mp4")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "options",
    [{}, {"fast": True, "stride_seconds": 0.35}, {"start_seconds": 1.1, "end_seconds": 3.3, "stride_seconds": 0.8}],
    ids=str,
)
@pytest.mark.slow
def test_a_window_has_the_scores_that_classify_gives_for_its_span(recognizer, clip, options) -> None:
    timeline = recognizer.timeline(clip, **options)
    fast = options.get("fast", False)
    for start, end, scores in zip(timeline.starts, timeline.ends, timeline.raw_scores, strict=True):
        alone = recognizer.classify(clip, fast=fast, start_seconds=start, end_seconds=end)
        np.testing.assert_allclose(scores, alone.scores, atol=1e-6)
    assert recognizer.timeline(clip, context="none", **options).scores.tobytes() == timeline.raw_scores.tobytes()
    assert np.ptp(timeline.scores, axis=0).max() > 0.02  # the windows differ, so the comparison means something


def test_a_longer_window_spreads_the_frames_and_says_so(recognizer, clip: Path) -> None:
    timeline = recognizer.timeline(clip, window_seconds=2.0, context="none")
    card = recognizer.card
    with Recognizer(
        recognizer.network, replace(card, input=replace(card.input, frames_per_second=4.0)), device="cpu"
    ) as slower:
        for start, end, scores in zip(timeline.starts, timeline.ends, timeline.scores, strict=True):
            expected = slower.classify(clip, start_seconds=start, end_seconds=end).scores
            np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert len(timeline) == 6
    assert timeline.notes == (
        "The windows last 2.00 s, the model's own 0.80 s: their 8 frames are spread evenly, 4.00 a second instead of "
        "10.00.",
    )


def test_a_clip_shorter_than_a_window_is_looped_as_by_classify(recognizer, clip_folder: Path) -> None:
    path = clip_folder / "z with space.mp4"  # half a second
    timeline, prediction = recognizer.timeline(path), recognizer.classify(path)
    np.testing.assert_allclose(timeline.scores, prediction.scores[None], atol=1e-6)
    assert (timeline.starts.tolist(), timeline.ends.tolist()) == ([0.0], [0.5])
    assert timeline.notes == ("The video (0.50 s) is shorter than a window (0.80 s) and was looped.",)
    (segment,) = timeline.segments()
    assert (segment.start_seconds, segment.end_seconds) == (0.0, 0.5)


@settings(deadline=None, max_examples=60)
@given(
    duration=st.floats(0.04, 30),
    window=st.none() | st.floats(0.1, 5),
    stride_share=st.none() | st.floats(0.2, 1),
    start_share=st.none() | st.floats(0, 0.9),
)
def test_windows_cover_the_video_and_end_with_it(
    duration: float, window: float | None, stride_share: float | None, start_share: float | None
) -> None:
    info = replace(INFO, duration_seconds=duration, num_frames=max(1, round(duration * 25)))
    length = 0.8 if window is None else window
    stride = None if stride_share is None else stride_share * length
    start = 0.0 if start_share is None else start_share * duration
    plan = plan_windows(info, SPEC, window_seconds=window, stride_seconds=stride, start_seconds=start)
    assert plan.starts[0] == pytest.approx(start, abs=1e-6)
    assert plan.ends[-1] == duration
    assert (np.diff(plan.starts) > 0).all()
    assert (plan.starts[1:] <= plan.ends[:-1] + 1e-5).all()
    expected = min(length, duration - start)
    np.testing.assert_allclose(plan.ends - plan.starts, expected, atol=0.0011)
    np.testing.assert_allclose(np.diff(plan.starts)[:-1], stride or length / 2, atol=2e-6)
    assert (plan.times >= plan.starts[:, None]).all()
    assert (plan.times <= plan.ends[:, None]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_seconds": 0.0}, "window-seconds = 0 should be a finite number above 0"),
        ({"window_seconds": float("nan")}, "window-seconds = nan"),
        ({"stride_seconds": -1.0}, "stride-seconds = -1"),
        ({"stride_seconds": 0.9}, r"stride-seconds = 0.9 should not exceed the window's 0.8 s"),
        ({"stride_seconds": 1e-9}, "windows of 8 frames, and 625000 are allowed; take a longer stride"),
        ({"start_seconds": 9.0}, "before the video's end at 6.200 s"),
        ({"start_seconds": 2.0, "end_seconds": 1.0}, "should be after start_seconds = 2"),
        ({"batch_size": 0}, "batch-size = 0"),
    ],
)
def test_what_is_not_allowed_is_said(recognizer, clip: Path, options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recognizer.timeline(clip, **options)


def test_a_stride_as_it_is_printed_may_be_the_window() -> None:
    """2.56, the float, lies a little above 64 / 25."""
    spec = replace(SPEC, num_frames=64, frames_per_second=25.0)
    plan = plan_windows(replace(INFO, duration_seconds=7.68), spec, stride_seconds=2.56)
    assert plan.starts.tolist() == [0.0, 2.56, 5.12]
    assert plan.ends.tolist() == [2.56, 5.12, 7.68]


# --- one pass


def test_every_frame_is_decoded_once_and_dropped_in_time(recognizer, clip: Path, monkeypatch) -> None:
    read: list[int] = []
    resize = windows.resize_region
    monkeypatch.setattr(
        windows,
        "resize_region",
        lambda frames, *rest, **named: read.append(len(frames)) or resize(frames, *rest, **named),
    )
    timeline = recognizer.timeline(clip)
    assert len(timeline) == 15
    assert read == [1] * 62
    # Windows of 8 frames never need more than 8 at a time here.
    monkeypatch.setattr(windows, "MAX_HELD_BYTES", 8 * 3 * 48 * 48)
    assert recognizer.timeline(clip).scores.tobytes() == timeline.scores.tobytes()
    monkeypatch.setattr(windows, "MAX_HELD_BYTES", 8 * 3 * 48 * 48 - 1)
    with pytest.raises(UsageError, match=r"share 8 frames at a time, and 7 fit in memory"):
        recognizer.timeline(clip)


def test_it_grows_window_by_window_and_stops_when_it_is_closed(recognizer, clip: Path, monkeypatch) -> None:
    readers: list[VideoReader] = []
    new_reader = recognizer.new_reader
    monkeypatch.setattr(recognizer, "new_reader", lambda: readers.append(new_reader()) or readers[-1])
    with closing(slide(recognizer, clip)) as steps:
        first, second = next(steps), next(steps)
        recognizer.classify(clip)  # others are served meanwhile
        assert readers[0]._process is not None
    assert readers[0]._process is None
    assert (len(first), len(second), second.num_planned) == (1, 2, 15)
    assert not second.is_complete
    assert second.scores[0].tobytes() == first.scores[0].tobytes()
    assert second.segments()[-1].end_seconds == second.ends[-1] == pytest.approx(1.2)


def test_windows_may_share_a_forward_pass(recognizer, clip: Path) -> None:
    steps = list(slide(recognizer, clip, batch_size=4))
    assert [len(step) for step in steps] == [4, 8, 12, 15]
    np.testing.assert_allclose(steps[-1].scores, recognizer.timeline(clip).scores, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.slow
def test_windows_before_the_damage_are_kept(recognizer, clip: Path, damaged: Path, batch_size: int) -> None:
    *before, timeline = slide(recognizer, damaged, batch_size=batch_size)
    assert before[-1].logits.tobytes() == timeline.logits.tobytes()
    assert timeline.scores.tobytes() == before[-1].in_context("nonlocal").scores.tobytes()
    assert [step.error for step in before] == [None] * len(before)
    error = timeline.error
    assert error is not None
    assert error.code == "corrupt"
    assert not timeline.is_complete
    with pytest.warns(UserWarning, match=rf"damaged.*{len(timeline)} of 15 windows, up to .* were kept"):
        in_python = recognizer.timeline(damaged, batch_size=batch_size)
    assert in_python.scores.tobytes() == timeline.scores.tobytes()
    assert in_python.error is not None
    assert in_python.error.code == "corrupt"
    assert "broke: corrupt" in repr(in_python)
    spoilt = float(re.findall(r"the frame at (\d.\d\d) s is damaged", error.message)[0])
    whole = recognizer.timeline(clip)
    assert len(timeline) == (whole.ends <= spoilt + 1e-9).sum() > 4
    np.testing.assert_allclose(timeline.raw_scores, whole.raw_scores[: len(timeline)], atol=1e-6)
    assert any("decord was given up" in note for note in timeline.notes)


def test_a_missing_file_has_its_code(recognizer, tmp_path: Path) -> None:
    with pytest.raises(VideoError) as caught:
        recognizer.timeline(tmp_path / "gone.mp4")
    assert caught.value.code == "not_found"


PEAKS = """
import json, sys
from pathlib import Path
import nonlocal_video as nlv
from nonlocal_video.inference.sliding import slide

def peak_mebibytes():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

with nlv.load(sys.argv[1], device="cpu") as recognizer:
    peaks = {}
    for timeline in slide(recognizer, sys.argv[2], window_seconds=6.4, stride_seconds=3.2):
        peaks[round(timeline.ends[-1])] = peak_mebibytes()
print(json.dumps([timeline.ends[-1], peaks[58], peaks[600]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_length(tiny_model: Path, tmp_path: Path) -> None:
    """Ten minutes: all the frames that are needed would be 31 MB, as the network sees them 10 MB."""
    path = tmp_path / "long.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=s=96x72:r=4:d=600"]
    arguments = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(["ffmpeg", "-v", "error", *source, *arguments], check=True)
    command = [sys.executable, "-c", PEAKS, str(tiny_model), str(path)]
    end, after_1_minute, after_10 = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert end == 600.0
    assert after_10 - after_1_minute < 5, "MiB grown in nine minutes"
