"""A window that slides over a long video: its answers are those of `classify`, its memory has a bound."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from nonlocal_video.errors import OutputError, UsageError, VideoError
from nonlocal_video.inference import sliding
from nonlocal_video.inference.prediction import StageSeconds
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.sliding import plan_windows, slide
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.inference.timeline_files import clock, to_csv, to_json, to_vtt, write_timeline
from nonlocal_video.models.card import InputSpec
from nonlocal_video.models.checkpoint import load_checkpoint, read_card
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video
from nonlocal_video.video.info import VideoInfo

FPS = 10
INFO = VideoInfo("mov", "h264", 96, 72, 0, 100, 25.0, 0.0, 4.0, False, "pyav")
SPEC = InputSpec(8, 10.0, 64, 48, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def network(tiny_model: Path) -> nn.Module:
    """The small model with a weak classifier, so that it is never so sure that scores stop to differ."""
    network, _ = load_checkpoint(tiny_model)
    with torch.no_grad():
        network.fc.weight.mul_(0.005)
    return network


@pytest.fixture(scope="module")
def recognizer(network: nn.Module, tiny_model: Path) -> Iterator[Recognizer]:
    with Recognizer(network, read_card(tiny_model), device="cpu") as unsure:
        yield unsure


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """62 frames of changing colours."""
    path = tmp_path_factory.mktemp("timeline") / "colours.mp4"
    colours = np.random.default_rng(0).integers(0, 256, (62, 3, 4, 3), dtype=np.uint8)
    write_video(path, (colour.repeat(24, 0).repeat(24, 1) for colour in colours), fps=FPS)
    return path


@pytest.fixture(scope="module")
def damaged(clip: Path) -> Path:
    """The same, with zeros over some of its last third."""
    content = bytearray(clip.read_bytes())
    place = len(content) * 2 // 3
    content[place : place + 600] = bytes(600)
    path = clip.with_name("damaged.mp4")
    path.write_bytes(content)
    return path


def made(scores: np.ndarray, *, window: float = 1.0, stride: float = 0.5, labels: tuple[str, ...] = ()) -> Timeline:
    """A timeline with the given scores (windows, classes)."""
    starts = np.arange(len(scores)) * stride
    return Timeline(
        path="made.mp4",
        model="tiny",
        labels=labels or tuple(f"class {index}" for index in range(scores.shape[1])),
        starts=starts,
        ends=starts + window,
        scores=scores.astype(np.float32),
        info=INFO,
        window_seconds=window,
        stride_seconds=stride,
        num_planned=len(scores),
        num_frames=8,
        crop=48,
        device="cpu",
        seconds=StageSeconds(1.0, 2.0, 3.0),
    )


# --- windows


@pytest.mark.parametrize(
    "options",
    [{}, {"fast": True, "stride_seconds": 0.35}, {"start_seconds": 1.1, "end_seconds": 3.3, "stride_seconds": 0.8}],
    ids=str,
)
def test_a_window_has_the_scores_that_classify_gives_for_its_span(recognizer, clip, options) -> None:  # type: ignore[no-untyped-def]
    timeline = recognizer.timeline(clip, **options)
    fast = options.get("fast", False)
    for start, end, scores in zip(timeline.starts, timeline.ends, timeline.scores, strict=True):
        alone = recognizer.classify(clip, fast=fast, start_seconds=start, end_seconds=end)
        np.testing.assert_allclose(scores, alone.scores, atol=1e-6)
    assert np.ptp(timeline.scores, axis=0).max() > 0.02  # the windows differ, so the comparison means something


def test_a_longer_window_spreads_the_frames_and_says_so(recognizer, network, clip: Path) -> None:  # type: ignore[no-untyped-def]
    timeline = recognizer.timeline(clip, window_seconds=2.0)
    card = recognizer.card
    with Recognizer(network, replace(card, input=replace(card.input, frames_per_second=4.0)), device="cpu") as slower:
        for start, end, scores in zip(timeline.starts, timeline.ends, timeline.scores, strict=True):
            expected = slower.classify(clip, start_seconds=start, end_seconds=end).scores
            np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert len(timeline) == 6
    assert timeline.notes == (
        "The windows last 2.00 s, the model's own 0.80 s: their 8 frames are spread evenly, 4.00 a second instead of "
        "10.00.",
    )


def test_a_clip_shorter_than_a_window_is_looped_as_by_classify(recognizer, clip_folder: Path) -> None:  # type: ignore[no-untyped-def]
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
def test_what_is_not_allowed_is_said(recognizer, clip: Path, options, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=message):
        recognizer.timeline(clip, **options)


def test_a_stride_as_it_is_printed_may_be_the_window() -> None:
    """2.56, the float, lies a little above 64 / 25."""
    spec = replace(SPEC, num_frames=64, frames_per_second=25.0)
    plan = plan_windows(replace(INFO, duration_seconds=7.68), spec, stride_seconds=2.56)
    assert plan.starts.tolist() == [0.0, 2.56, 5.12]
    assert plan.ends.tolist() == [2.56, 5.12, 7.68]


# --- one pass


def test_every_frame_is_decoded_once_and_dropped_in_time(recognizer, clip: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    read: list[int] = []
    resize = sliding.resize_region
    monkeypatch.setattr(
        sliding,
        "resize_region",
        lambda frames, *rest, **named: read.append(len(frames)) or resize(frames, *rest, **named),
    )
    timeline = recognizer.timeline(clip)
    assert len(timeline) == 15
    assert read == [1] * 62
    # Windows of 8 frames never need more than 8 at a time here.
    monkeypatch.setattr(sliding, "MAX_HELD_BYTES", 8 * 3 * 48 * 48)
    assert recognizer.timeline(clip).scores.tobytes() == timeline.scores.tobytes()
    monkeypatch.setattr(sliding, "MAX_HELD_BYTES", 8 * 3 * 48 * 48 - 1)
    with pytest.raises(UsageError, match=r"share 8 frames at a time, and 7 fit in memory"):
        recognizer.timeline(clip)


def test_it_grows_window_by_window_and_stops_when_it_is_closed(recognizer, clip: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
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


def test_windows_may_share_a_forward_pass(recognizer, clip: Path) -> None:  # type: ignore[no-untyped-def]
    steps = list(slide(recognizer, clip, batch_size=4))
    assert [len(step) for step in steps] == [4, 8, 12, 15]
    np.testing.assert_allclose(steps[-1].scores, recognizer.timeline(clip).scores, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_windows_before_the_damage_are_kept(recognizer, clip: Path, damaged: Path, batch_size: int) -> None:  # type: ignore[no-untyped-def]
    *before, timeline = slide(recognizer, damaged, batch_size=batch_size)
    assert before[-1].scores.tobytes() == timeline.scores.tobytes()
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
    np.testing.assert_allclose(timeline.scores, whole.scores[: len(timeline)], atol=1e-6)
    assert any("decord was given up" in note for note in timeline.notes)


def test_a_missing_file_has_its_code(recognizer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
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


# --- segments


def random_timelines() -> st.SearchStrategy[Timeline]:
    def build(seed: int, windows: int, classes: int, overlap: int) -> Timeline:
        scores = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), windows)
        return made(scores, window=overlap * 0.7, stride=0.7)

    return st.builds(build, st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 5), st.integers(1, 4))


@settings(deadline=None, max_examples=150)
@given(random_timelines(), st.sampled_from([0.0, 0.3, 0.6, 1.0]), st.sampled_from([0.0, 0.8, 2.5, 1e9]))
def test_segments_cover_the_time_without_gap_or_overlap(
    timeline: Timeline, threshold: float, min_seconds: float
) -> None:
    segments = timeline.segments(threshold=threshold, min_seconds=min_seconds)
    assert segments[0].start_seconds == timeline.starts[0]
    assert segments[-1].end_seconds == timeline.ends[-1]
    for segment, following in pairwise(segments):
        assert segment.end_seconds == following.start_seconds
        assert segment.index != following.index
    for segment in segments:
        assert segment.seconds >= min_seconds - 1e-6 or len(segments) == 1
        assert segment.label == (None if segment.index is None else timeline.labels[segment.index])
        assert 0 <= segment.score <= 1 + 1e-6
        if min_seconds == 0:
            assert (segment.score >= threshold - 1e-6) if segment.label else (segment.score < threshold)


@settings(deadline=None, max_examples=100)
@given(random_timelines(), st.floats(0, 1), st.sampled_from([0.0, 0.5]))
def test_a_moment_is_decided_by_the_mean_of_the_windows_that_cover_it(
    timeline: Timeline, share: float, threshold: float
) -> None:
    seconds = timeline.starts[0] + share * (timeline.ends[-1] - timeline.starts[0])
    bounds = np.concatenate([timeline.starts, timeline.ends])
    if np.abs(bounds - seconds).min() < 0.01:
        return  # on a bound the answer changes
    covering = (timeline.starts < seconds) & (seconds < timeline.ends)
    mean = timeline.scores[covering].astype(np.float64).mean(axis=0)
    (segment,) = [s for s in timeline.segments(threshold=threshold) if s.start_seconds < seconds < s.end_seconds]
    assert segment.index == (int(mean.argmax()) if mean.max() >= threshold else None)


def test_segments_by_hand() -> None:
    """Windows 0-1, 0.5-1.5, 1-2, 1.5-2.5: the second half second is seen by the first two, and so on."""
    timeline = made(np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6]]))
    first, second = timeline.segments()
    # Means of class 0: 0.9, 0.8, 0.45, 0.3, 0.4.
    assert (first.start_seconds, first.end_seconds, first.label) == (0.0, 1.0, "class 0")
    assert (second.start_seconds, second.end_seconds, second.label) == (1.0, 2.5, "class 1")
    assert first.score == pytest.approx(0.85)
    assert second.score == pytest.approx((0.55 + 0.7 + 0.6) / 3)
    sure = timeline.segments(threshold=0.65)
    assert [(s.end_seconds, s.label) for s in sure] == [(1.0, "class 0"), (1.5, None), (2.0, "class 1"), (2.5, None)]
    assert [s.score for s in sure] == pytest.approx([0.85, 0.55, 0.7, 0.6])


def test_short_segments_go_to_their_longer_neighbour() -> None:
    scores = np.eye(3)[[0, 0, 0, 1, 2, 2, 2, 2, 1, 2, 0]]
    timeline = made(scores, window=1.0, stride=1.0)
    found = [(s.start_seconds, s.end_seconds, s.index) for s in timeline.segments(min_seconds=1.5)]
    # 1 at 3 s goes to the four seconds of 2; 1 at 8 s too, and joins the 2 after it; 0 at the end follows.
    assert found == [(0, 3, 0), (3, 11, 2)]
    assert timeline.segments(min_seconds=1.5)[1].score == pytest.approx(5 / 8)
    for wrong in ({"threshold": 1.1}, {"threshold": float("nan")}, {"min_seconds": -1}):
        with pytest.raises(UsageError, match="should be"):
            timeline.segments(**wrong)


def test_a_timeline_that_contradicts_itself_is_refused() -> None:
    timeline = made(np.full((3, 2), 0.5))
    for wrong in (
        {"scores": timeline.scores[:2]},
        {"ends": timeline.starts},
        {"starts": timeline.starts[::-1]},
        {"ends": timeline.starts + 0.4},
    ):
        with pytest.raises(ValueError, match="should"):
            replace(timeline, **wrong)


# --- files

TIMING = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})")


def parse_vtt(text: str) -> list[tuple[float, float, str]]:
    """WebVTT as the W3C's syntax has it, as far as we use it: a signature, blocks between empty lines."""
    signature, *blocks = text.rstrip("\n").split("\n\n")
    assert signature == "WEBVTT"
    cues = []
    for block in blocks:
        timing, *lines = block.split("\n")
        match = TIMING.fullmatch(timing)
        assert match is not None, timing
        parts = [int(part) for part in match.groups()]
        start, end = (h * 3600 + m * 60 + s + ms / 1000 for h, m, s, ms in (parts[:4], parts[4:]))
        payload = "\n".join(lines)
        assert payload
        assert not re.search(r"-->|<|&(?!amp;|lt;|gt;)", payload)
        cues.append((start, end, payload.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")))
    return cues


@settings(deadline=None, max_examples=60)
@given(random_timelines(), st.sampled_from([0.0, 0.6]))
def test_subtitles_are_valid_and_say_the_segments(timeline: Timeline, threshold: float) -> None:
    segments = timeline.segments(threshold=threshold)
    cues = parse_vtt(to_vtt(segments))
    named = [segment for segment in segments if segment.label]
    assert [text for *_, text in cues] == [f"{s.label} {s.score:.0%}" for s in named]
    np.testing.assert_allclose([cue[0] for cue in cues], [s.start_seconds for s in named], atol=0.00051)
    for start, end, _ in cues:
        assert start < end
    for earlier, later in pairwise(cues):
        assert earlier[1] <= later[0]


def test_labels_that_are_markup_stay_text() -> None:
    timeline = made(np.array([[0.9, 0.1]]), labels=("a --> b\n\n<i>R&D</i>", "other"))
    assert parse_vtt(to_vtt(timeline.segments())) == [(0.0, 1.0, "a --> b  <i>R&D</i> 90%")]
    assert [clock(s) for s in (0, 59.9996, 3723.5, 360000)] == [
        "00:00:00.000", "00:01:00.000", "01:02:03.500", "100:00:00.000",
    ]  # fmt: skip


def test_json_and_csv_read_back(recognizer, clip: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    timeline = recognizer.timeline(clip)
    path = write_timeline(tmp_path / "t.json", timeline, top_k=3, threshold=0.2, min_seconds=1.0)
    found = json.loads(path.read_text())
    assert (found["status"], found["error"], found["planned_windows"]) == ("ok", None, 15)
    assert set(found["video"]) == set(recognizer.classify(clip).to_row()["video"])
    assert [w["end_seconds"] for w in found["windows"]] == timeline.ends.tolist()
    for window, scores in zip(found["windows"], timeline.scores, strict=True):
        assert [s["score"] for s in window["top"]] == sorted(scores.astype(float).tolist(), reverse=True)[:3]
        assert [s["score"] for s in window["top"]] == [float(scores[s["index"]]) for s in window["top"]]
        assert [s["label"] for s in window["top"]] == [timeline.labels[s["index"]] for s in window["top"]]
    segments = timeline.segments(threshold=0.2, min_seconds=1.0)
    assert found["segments"] == [vars(segment) for segment in segments]

    rows = list(csv.DictReader(io.StringIO(to_csv(timeline, top_k=9))))
    assert len(rows) == 15
    assert len(rows[0]) == 2 + 7 * 3  # all seven classes; there are no more
    for row, start, scores in zip(rows, timeline.starts, timeline.scores, strict=True):
        assert float(row["start_seconds"]) == start
        assert float(row["top1_score"]) == scores.max() == scores[int(row["top1_index"])]
        assert float(row["top7_score"]) == scores.min() == scores[int(row["top7_index"])]


def test_json_says_that_a_timeline_is_not_the_whole() -> None:
    part = replace(made(np.full((3, 2), 0.5)), num_planned=9)
    assert to_json(part)["status"] == "stopped"
    broken = to_json(replace(part, error=VideoError("corrupt", "the frame is damaged")))
    assert broken["status"] == "error"
    assert broken["error"] == {"code": "corrupt", "message": "the frame is damaged"}


def test_the_picture_shows_who_wins_when(tmp_path: Path) -> None:
    """Ten minutes, twelve actions of fifty seconds: the dark cells step down from left to right."""
    scores = np.eye(12)[np.arange(1199) // 100] * 0.9 + 0.1 / 12
    path = write_timeline(tmp_path / "t.png", made(scores, labels=tuple(f"riding $\\n${i}" for i in range(12))))
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    dark = np.argwhere(pixels[:, : pixels.shape[1] * 9 // 10, 2] - pixels[:, : pixels.shape[1] * 9 // 10, 0] > 70)
    assert 900 < pixels.shape[1] < 1800
    rows, columns = dark.T
    assert np.corrcoef(rows, columns)[0, 1] > 0.95
    nothing = write_timeline(tmp_path / "n.png", made(np.full((4, 3), 1 / 3)), threshold=0.9)
    assert Image.open(nothing).size[0] == Image.open(path).size[0]


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    timeline = made(np.full((3, 2), 0.5))
    with pytest.raises(UsageError, match=r"should end in one of \.json, \.csv, \.vtt, \.png"):
        write_timeline(tmp_path / "t.txt", timeline)
    with pytest.raises(UsageError, match="make it first"):
        write_timeline(tmp_path / "gone" / "t.vtt", timeline)
    (tmp_path / "folder.vtt").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_timeline(tmp_path / "folder.vtt", timeline)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.vtt"]


def test_labels_that_begin_like_a_formula_are_text_in_the_csv_alone(tmp_path: Path) -> None:
    timeline = made(np.array([[0.75, 0.25], [0.25, 0.75]]), labels=("=SUM(A1)", "jump"))
    escaped, plain = (
        write_timeline(tmp_path / f"{escape}.csv", timeline, csv_escape=escape) for escape in (True, False)
    )
    for path, label in ((escaped, "'=SUM(A1)"), (plain, "=SUM(A1)")):
        found = list(csv.DictReader(io.StringIO(path.read_text())))
        assert [row["top1_label"] for row in found] == [label, "jump"]
        assert [row["top1_score"] for row in found] == ["0.75", "0.75"]
    assert to_json(timeline)["windows"][0]["top"][0]["label"] == "=SUM(A1)"
    assert "=SUM(A1)" in to_vtt(timeline.segments())
