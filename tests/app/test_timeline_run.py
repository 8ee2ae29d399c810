"""The timeline of a long video, without a page."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from nonlocal_video.app.callbacks import timeline_run, timeline_updates, timeline_words
from nonlocal_video.app.callbacks.timeline_run import (
    CHOOSE,
    NOTHING_YET,
    TimelineRuns,
    Update,
)
from nonlocal_video.app.callbacks.timeline_words import seconds_of, short_clock
from nonlocal_video.app.components.timeline_plot import MAX_POINTS, MAX_ROWS, plotted
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.video.encode import write_video

ANN: Any = SimpleNamespace(session_hash="ann")
BEN: Any = SimpleNamespace(session_hash="ben")


@pytest.fixture
def runs(recognizer: Recognizer) -> TimelineRuns:
    return TimelineRuns({"tiny": recognizer})


@pytest.fixture(autouse=True)
def _every_window_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_run, "UPDATE_SECONDS", 0.0)
    monkeypatch.setattr(timeline_updates, "UPDATE_SHARE", 0)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds, of a colour each."""
    path = tmp_path_factory.mktemp("long") / "holiday.mp4"
    colours = np.random.default_rng(1).integers(0, 256, (6, 1, 1, 3)).repeat(10, axis=0)
    write_video(path, (np.broadcast_to(colour, (72, 96, 3)).astype(np.uint8) for colour in colours), fps=10)
    return path


def files_of(update: Update) -> dict[str, Path]:
    return {Path(name).suffix: Path(name) for name in update.downloads["value"]}


def test_the_timeline_grows_and_ends_as_that_of_the_library(
    runs: TimelineRuns, recognizer: Recognizer, video: Path
) -> None:
    expected = recognizer.timeline(video)
    updates, read = [], {}
    for update in runs.run(str(video), "tiny", "1x1", 0.5, 0.0, 0.0, ANN):
        updates.append(update)
        if update.downloads.get("value"):
            read = {ending: file.read_text() for ending, file in files_of(update).items()}
            names = [file.name for file in files_of(update).values()]
    first, *updates = updates
    assert first.status.startswith("Reading holiday.mp4")
    assert len(updates) == len(expected) == 14
    ends = [update.plot["bounds"][-1] for update in updates]
    assert ends == pytest.approx(expected.ends, abs=1e-3), "with each window"
    last = updates[-1]
    assert last.status.startswith("Done. 14 windows in ")
    assert "tiny looked at 14 windows of 0.80 s every 0.40 s" in last.status
    segments = expected.segments()
    assert [row[2] for row in last.table] == [segment.label for segment in segments]
    assert [seconds_of(row[0]) for row in last.table] == pytest.approx([s.start_seconds for s in segments], abs=0.005)
    assert names == ["holiday.json", "holiday.csv", "holiday.vtt"]
    found = json.loads(read[".json"])
    assert (found["path"], found["status"], len(found["windows"])) == ("holiday.mp4", "ok", 14)
    assert len(list(csv.reader(read[".csv"].splitlines()))) == 15
    assert read[".vtt"].startswith("WEBVTT")
    assert runs.unfinished == {}
    assert not files_of(last)[".json"].exists(), "nothing is left behind"


@pytest.mark.parametrize(
    ("window", "stride", "window_seconds", "stride_seconds"),
    [("1x1", 0.25, 0.8, 0.2), ("fast", 1.0, 0.4, 0.4), ("wide", 0.5, 3.2, 1.6)],
)
def test_choices_of_windows(
    runs: TimelineRuns, video: Path, window: str, stride: float, window_seconds: float, stride_seconds: float
) -> None:
    last = list(runs.run(str(video), "tiny", window, stride, 0.0, 0.0, ANN))[-1]
    assert f"windows of {window_seconds:.2f} s every {stride_seconds:.2f} s" in last.status
    assert ("spread evenly" in last.status) == (window == "wide"), "the notes are shown"


def test_the_rule_for_segments(runs: TimelineRuns, recognizer: Recognizer, video: Path) -> None:
    last = list(runs.run(str(video), "tiny", "1x1", 0.5, 0.9, 2.0, ANN))[-1]
    expected = recognizer.timeline(video).segments(threshold=0.9, min_seconds=2.0)
    assert [row[2] for row in last.table] == [segment.label or "(no action)" for segment in expected]


def test_a_cancelled_run_leaves_what_there_is(runs: TimelineRuns, video: Path) -> None:
    run = runs.run(str(video), "tiny", "1x1", 0.5, 0.0, 0.0, ANN)
    for _ in range(4):
        shown = next(run)
    assert runs.is_running(ANN)
    assert not runs.is_running(BEN)
    assert next(iter(runs.cancel(BEN))).status == NOTHING_YET, "another visitor has no run"
    cancelled = runs.cancel(ANN)
    update = next(cancelled)
    assert update.status.startswith("Cancelled. 3 windows")
    assert not runs.is_running(ANN), "the buttons change at once"
    assert "3 of 14 windows, up to 0:01.60" in update.status
    assert update.plot == shown.plot
    assert json.loads(files_of(update)[".json"].read_text())["status"] == "stopped"
    assert list(cancelled) == []
    (last,) = run
    assert (last.status, last.plot) == (update.status, update.plot), "the run ends with the same, whatever came late"
    assert runs.unfinished == runs.cancelled == {}


def test_a_cancelled_run_says_nothing_about_another_video(runs: TimelineRuns, video: Path) -> None:
    run = runs.run(str(video), "tiny", "1x1", 0.5, 0.0, 0.0, ANN)
    for _ in range(4):
        next(run)
    next(iter(runs.cancel(ANN)))
    runs.choose(ANN)
    assert list(run) == []


def test_a_run_that_waits_is_cancelled_and_the_next_press_counts(runs: TimelineRuns, video: Path) -> None:
    runs.press(ANN)
    assert runs.is_running(ANN)
    assert next(iter(runs.cancel(ANN))).status == NOTHING_YET
    assert not runs.is_running(ANN)
    runs.press(ANN)
    arguments = (str(video), "tiny", "fast", 1.0, 0.0, 0.0, ANN)
    assert list(runs.run(*arguments)) == [], "the first press was cancelled before its turn"
    assert list(runs.run(*arguments))[-1].status.startswith("Done.")


def test_visitors_who_left_are_forgotten(runs: TimelineRuns, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_run, "MAX_UNFINISHED", 2)
    begun = []  # a generator that nobody has is closed
    for name in ("ann", "ben", "cleo"):
        visitor: Any = SimpleNamespace(session_hash=name)
        run = runs.run(str(video), "tiny", "1x1", 0.5, 0.0, 0.0, visitor)
        next(run), next(run)
        begun.append(run)
    assert list(runs.unfinished) == ["ben", "cleo"]
    runs.leave(BEN)
    runs.choose(SimpleNamespace(session_hash="cleo"))
    assert runs.unfinished == {}


def test_a_video_that_breaks_off_keeps_what_came_before(
    recognizer: Recognizer, video: Path, tmp_path: Path, runs: TimelineRuns
) -> None:
    damaged = tmp_path / "damaged.mp4"
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    data[middle : middle + 400] = bytes(400)
    damaged.write_bytes(data)
    last = list(runs.run(str(damaged), "tiny", "1x1", 0.5, 0.0, 0.0, ANN))[-1]
    assert last.status.startswith("The video broke off. damaged.mp4: ")
    assert str(tmp_path) not in last.status
    timeline = list(timeline_updates.timeline_updates(recognizer, damaged, update_seconds=0))[-1]
    assert timeline.error is not None
    assert 0 < len(timeline) < timeline.num_planned


@pytest.mark.parametrize(
    ("name", "message"), [(None, CHOOSE), ("gone.mp4", "upload it again"), ("b/note.mp4", "not a video")]
)
def test_what_cannot_begin(runs: TimelineRuns, clip_folder: Path, name: str | None, message: str) -> None:
    clip = None if name is None else str(clip_folder / name)
    with pytest.raises(gr.Error, match=message) as raised:
        list(runs.run(clip, "tiny", "1x1", 0.5, 0.0, 0.0, ANN))
    assert str(clip_folder) not in raised.value.message


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0:00.00"), (83.5, "1:23.50"), (59.999, "1:00.00"), (7325.25, "2:02:05.25")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert short_clock(seconds) == shown
    assert seconds_of(shown) == pytest.approx(seconds, abs=0.005)


@pytest.fixture(scope="module")
def long_timeline(recognizer: Recognizer, video: Path) -> Timeline:
    """Twenty minutes of windows with random scores."""
    short = recognizer.timeline(video)
    starts = np.arange(3000) * 0.4
    scores = np.random.default_rng(0).dirichlet(np.ones(len(short.labels)), len(starts)).astype(np.float32)
    return replace(short, starts=starts, ends=starts + 0.8, scores=scores, num_planned=len(starts))


def test_what_is_left_out_is_segments(long_timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table shows segments, so they are counted, not the windows they are made of."""
    monkeypatch.setattr(timeline_run, "SHOWN_ROWS", 5)
    monkeypatch.setattr(timeline_words, "SHOWN_ROWS", 5)
    words = "The first 5 segments are shown"
    for threshold, many in ((0.0, True), (1.0, False)):
        rule = timeline_run.Rule(threshold, 0.0)
        segments = long_timeline.segments(threshold=threshold)
        assert (len(segments) > 5) == many
        for update in timeline_run._ended(long_timeline, rule, "Done."):
            assert len(update.table) == min(5, len(segments))
            assert (words in update.status) == many


def test_a_plot_has_no_more_points_than_a_screen_and_keeps_the_means(long_timeline: Timeline) -> None:
    plot = plotted(long_timeline, long_timeline.segments())
    assert len(plot["bounds"]) == MAX_POINTS + 1
    assert len(plot["rows"]) <= MAX_ROWS
    assert plot["bounds"] == sorted(plot["bounds"])
    assert plot["bounds"][-1] == pytest.approx(long_timeline.ends[-1], abs=1e-3)
    for row in plot["rows"]:
        # Over the whole the mean of the line is the mean of the windows: all but both ends are seen twice.
        mean = np.average(row["scores"], weights=np.diff(plot["bounds"]))
        assert mean == pytest.approx(long_timeline.scores[:, long_timeline.labels.index(row["label"])].mean(), abs=1e-3)


def test_a_plot_without_winners_shows_the_likeliest(long_timeline: Timeline) -> None:
    plot = plotted(long_timeline, long_timeline.segments(threshold=1.0))
    assert [segment["label"] for segment in plot["segments"]] == [None]
    means = long_timeline.scores.mean(axis=0)
    assert [row["label"] for row in plot["rows"]] == [long_timeline.labels[index] for index in np.argsort(-means)[:3]]
