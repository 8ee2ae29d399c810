"""Files of a timeline's scores: segments, subtitles, tables and a picture."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nonlocal_video.errors import OutputError, UsageError, VideoError
from nonlocal_video.inference.prediction import StageTimings
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.inference.timeline_files import clock, to_csv, to_json, to_vtt, write_timeline
from nonlocal_video.video.info import VideoInfo

INFO = VideoInfo("mov", "h264", 96, 72, 0, 100, 25.0, 0.0, 4.0, False, "pyav")


@pytest.fixture(scope="module")
def clip(colour_clip: Callable[[int], Path]) -> Path:
    """62 frames of changing colours."""
    return colour_clip(62)


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
        timings=StageTimings(1.0, 2.0, 3.0),
    )


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


def test_json_and_csv_read_back(recognizer, clip: Path, tmp_path: Path) -> None:
    timeline = recognizer.timeline(clip, context="none")
    path = write_timeline(tmp_path / "t.json", timeline, top_k=3, threshold=0.2, min_seconds=1.0)
    found = json.loads(path.read_text())
    assert (found["status"], found["error"], found["planned_windows"]) == ("ok", None, 15)
    assert (found["context"], set(found["windows"][0])) == ("none", {"start_seconds", "end_seconds", "top"})
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
    with pytest.raises(UsageError, match="create it first"):
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
