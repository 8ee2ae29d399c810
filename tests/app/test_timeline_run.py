"""The timeline of a long video, without a page."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nonlocal_video.app.callbacks import timeline_run, timeline_updates, timeline_words
from nonlocal_video.app.callbacks.timeline_run import TimelineRuns, Update
from nonlocal_video.app.callbacks.timeline_words import short_clock, what_happens
from nonlocal_video.app.components import timeline_plot
from nonlocal_video.app.components.timeline_plot import MAX_POINTS, MAX_ROWS, plotted
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline import Segment, Timeline
from nonlocal_video.video.encode import write_video

ANN: Any = SimpleNamespace(session_hash="ann")
BEN: Any = SimpleNamespace(session_hash="ben")


def choose(runs: TimelineRuns, clip: Path, visitor: Any = ANN) -> Any:
    """First update of the page once a video was dropped; its run follows."""
    return runs.choose(SimpleNamespace(_data={"paths": [str(clip)]}), visitor)


def run_of(
    runs: TimelineRuns, clip: Path, window: str = "1x1", stride: float = 0.5, *rule: float, visitor: Any = ANN
) -> Iterator[Update]:
    choose(runs, clip, visitor)
    return runs.run("tiny", window, stride, *(rule or (0.0, 0.0)), visitor)


def details(update: Update) -> str:
    return " ".join(update.said["details"])


@pytest.fixture
def runs(recognizer: Recognizer) -> TimelineRuns:
    return TimelineRuns({"tiny": recognizer})


@pytest.fixture(autouse=True)
def _every_window_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.getbasetemp()))  # the tests' uploads lie there
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
    for update in run_of(runs, video):
        updates.append(update)
        if update.downloads.get("value"):
            read = {ending: file.read_text() for ending, file in files_of(update).items()}
            names = [file.name for file in files_of(update).values()]
    assert choose(TimelineRuns({"tiny": recognizer}), video)[0]["headline"] == "Reading holiday.mp4"
    assert len(updates) == len(expected) == 14
    ends = [update.plot["bounds"][-1] for update in updates]
    assert ends == pytest.approx(expected.ends, abs=1e-3), "with each window"
    last = updates[-1]
    assert "tiny looked at 14 windows of 0.80 s every 0.40 s" in details(last)
    segments = expected.segments()
    assert last.said["doing"] == "One segment in 0:06. Click it, or the curve, to go there."
    assert (last.said["state"], last.said["headline"]) == ("done", what_happens(segments))
    shown = last.plot["segments"]
    assert [one["label"] for one in shown] == [segment.label for segment in segments]
    assert [one["start"] for one in shown] == pytest.approx([s.start_seconds for s in segments], abs=0.001)
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
@pytest.mark.slow
def test_choices_of_windows(
    runs: TimelineRuns, video: Path, window: str, stride: float, window_seconds: float, stride_seconds: float
) -> None:
    last = list(run_of(runs, video, window, stride))[-1]
    assert f"windows of {window_seconds:.2f} s every {stride_seconds:.2f} s" in details(last)
    assert ("spread evenly" in details(last)) == (window == "wide"), "the notes are shown"


def test_the_rule_for_segments(runs: TimelineRuns, recognizer: Recognizer, video: Path) -> None:
    last = list(run_of(runs, video, "1x1", 0.5, 0.9, 2.0))[-1]
    expected = recognizer.timeline(video).segments(threshold=0.9, min_seconds=2.0)
    assert [one["label"] for one in last.plot["segments"]] == [segment.label for segment in expected]


def test_a_stopped_run_leaves_what_there_is(runs: TimelineRuns, video: Path) -> None:
    run = run_of(runs, video)
    for _ in range(3):
        shown = next(run)
    assert runs.is_running(ANN)
    assert not runs.is_running(BEN)
    assert next(iter(runs.cancel(BEN))).plot is None, "another visitor has no run"
    cancelled = runs.cancel(ANN)
    update = next(cancelled)
    assert update.said["doing"] == "Stopped at 0:01, after 3 of 14 windows."
    assert not runs.is_running(ANN), "the button changes at once"
    assert update.plot == shown.plot
    assert json.loads(files_of(update)[".json"].read_text())["status"] == "stopped"
    assert list(cancelled) == []
    (last,) = run
    assert (last.said, last.plot) == (update.said, update.plot), "the run ends with the same, whatever came late"
    assert runs.unfinished == runs.cancelled == {}


def test_a_stopped_run_says_nothing_about_another_video(runs: TimelineRuns, video: Path) -> None:
    run = run_of(runs, video)
    for _ in range(3):
        next(run)
    next(iter(runs.cancel(ANN)))
    choose(runs, video)
    assert list(run) == []


def test_a_run_that_waits_is_stopped_and_the_next_choice_counts(runs: TimelineRuns, video: Path) -> None:
    choose(runs, video)
    assert runs.is_running(ANN)
    assert "before the first window" in next(iter(runs.cancel(ANN))).said["headline"]
    assert not runs.is_running(ANN)
    assert runs.again(ANN).said["headline"] == "Reading holiday.mp4"
    arguments = ("tiny", "fast", 1.0, 0.0, 0.0, ANN)
    assert list(runs.run(*arguments)) == [], "the first choice was stopped before its turn"
    assert list(runs.run(*arguments))[-1].said["state"] == "done"


@pytest.mark.slow
def test_visitors_who_left_are_forgotten(runs: TimelineRuns, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_run, "MAX_UNFINISHED", 2)
    begun = []  # a generator that nobody has is closed
    for name in ("ann", "ben", "cleo"):
        visitor: Any = SimpleNamespace(session_hash=name)
        run = run_of(runs, video, visitor=visitor)
        next(run)
        begun.append(run)
    assert list(runs.unfinished) == ["ben", "cleo"]
    runs.leave(BEN)
    choose(runs, video, SimpleNamespace(session_hash="cleo"))
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
    last = list(run_of(runs, damaged))[-1]
    assert (last.said["state"], last.said["doing"][:24]) == ("stopped", "The video breaks off at ")
    assert " damaged.mp4: " in last.said["doing"]
    assert str(tmp_path) not in last.said["doing"]
    timeline = list(timeline_updates.timeline_updates(recognizer, damaged, update_seconds=0))[-1]
    assert timeline.error is not None
    assert 0 < len(timeline) < timeline.num_planned


def test_what_cannot_begin_is_the_headline(runs: TimelineRuns, clip_folder: Path, video: Path) -> None:
    (update,) = run_of(runs, clip_folder / "b" / "note.mp4")
    assert update.said["state"] == "error"
    assert update.said["headline"] == "This is not a video"
    assert update.said["doing"].startswith("note.mp4: it is not a video")
    assert update.plot is None
    for name in ("gone.mp4", "/etc/passwd"):
        shown = choose(runs, clip_folder / name)
        assert (shown[0]["state"], shown[-1]) == ("error", ""), "nothing is played"
        assert "drop it again" in shown[0]["headline"]
        assert list(runs.run("tiny", "1x1", 0.5, 0.0, 0.0, ANN)) == []
    gone = Path(shutil.copy(video, video.with_name("gone soon.mp4")))
    choose(runs, gone)
    gone.unlink()
    (update,) = runs.run("tiny", "1x1", 0.5, 0.0, 0.0, ANN)
    assert (update.said["headline"], "no longer on the server" in update.said["doing"]) == ("This clip is gone", True)


def test_what_happens_in_a_few_words() -> None:
    def happens(**seconds: float) -> str:
        return what_happens([Segment(0.0, length, label, 0, 0.9) for label, length in seconds.items()])

    assert happens(dancing=3.0) == "Dancing all along"
    assert happens(dancing=8.0, diving=2.0) == "Mostly dancing"
    assert happens(diving=4.0, dancing=6.0) == "Dancing and diving"
    assert happens(diving=4.0, dancing=6.0, yoga=1.0, golf=1.0) == "Dancing, diving and 2 more"
    unsure = [Segment(0.0, 3.0, "dancing", 0, 0.1), Segment(3.0, 4.0, "diving", 1, 0.3)]
    assert what_happens(unsure) == "Not sure: perhaps mostly dancing"
    assert what_happens([*unsure, Segment(4.0, 8.0, "dancing", 0, 0.9)]) == "Mostly dancing"
    assert what_happens([Segment(0.0, 1.0, None, None, 0.1)]) == "No action above the bound"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0:00.00"), (83.5, "1:23.50"), (59.999, "1:00.00"), (7325.25, "2:02:05.25")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert short_clock(seconds) == shown


@pytest.fixture(scope="module")
def long_timeline(recognizer: Recognizer, video: Path) -> Timeline:
    """Twenty minutes of windows with random scores."""
    short = recognizer.timeline(video)
    starts = np.arange(3000) * 0.4
    scores = np.random.default_rng(0).dirichlet(np.ones(len(short.labels)), len(starts)).astype(np.float32)
    return replace(short, starts=starts, ends=starts + 0.8, scores=scores, num_planned=len(starts))


def test_what_is_left_out_is_segments(long_timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page lists segments, so they are counted, not the windows they are made of."""
    monkeypatch.setattr(timeline_plot, "SHOWN_SEGMENTS", 5)
    monkeypatch.setattr(timeline_words, "SHOWN_SEGMENTS", 5)
    words = "The first 5 segments are shown"
    for threshold, many in ((0.0, True), (1.0, False)):
        rule = timeline_run.Rule(threshold, 0.0)
        segments = long_timeline.segments(threshold=threshold)
        assert (len(segments) > 5) == many
        for update in timeline_run._ended(long_timeline, rule):
            assert len(update.plot["segments"]) == min(5, len(segments))
            assert (words in update.said["doing"]) == many


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
