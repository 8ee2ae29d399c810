"""Continuous answers: those of a timeline for the same spans, each drawing on the last minute."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference import live
from nonlocal_video.inference.context import refined
from nonlocal_video.inference.frame_window import FrameWindow
from nonlocal_video.inference.live import LiveAnswers, follow
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of colours at 10/s."""
    random = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("live") / "colours.mp4"
    colours = random.integers(0, 256, (40, 1, 1, 3))
    write_video(path, (np.broadcast_to(colour, (72, 96, 3)).astype(np.uint8) for colour in colours), fps=10)
    return path


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Iterator[Recognizer]:
    with load(tiny_model, device="cpu") as recognizer:
        yield recognizer


def frames_of(clip: Path) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    with VideoReader() as reader:
        found = reader.read(clip, (np.arange(40) / 10 + 0.01).tolist())
    return zip(found.pts_seconds.tolist(), found.frames_thwc, strict=True)


def test_a_file_is_answered_like_its_timeline(recognizer: Recognizer, clip: Path) -> None:
    expected = recognizer.timeline(clip, stride_seconds=0.4)
    answers = list(recognizer.watch(clip, every_seconds=0.4))
    assert [answer.end_seconds for answer in answers] == expected.ends.tolist()
    np.testing.assert_allclose([answer.raw_scores for answer in answers], expected.raw_scores, atol=1e-6)
    # The last of a timeline's windows draws on all of them, as the last answer does.
    np.testing.assert_allclose(answers[-1].scores, expected.scores[-1], atol=1e-6)
    assert np.abs(answers[-1].scores - answers[-1].raw_scores).max() > 1e-4


def test_only_the_last_seconds_are_drawn_on(recognizer: Recognizer, clip: Path) -> None:
    whole = recognizer.timeline(clip, stride_seconds=0.4)
    answers = list(recognizer.watch(clip, every_seconds=0.4, context_seconds=0.85))
    assert whole.logits is not None
    assert whole.features is not None
    expected = refined(whole.logits[3:6], whole.features[3:6])[-1]  # it and the two that ended within 0.85 s
    np.testing.assert_allclose(answers[5].scores, expected, atol=1e-6)
    alone = list(recognizer.watch(clip, every_seconds=0.4, context="none"))
    np.testing.assert_array_equal([one.scores for one in alone], [one.raw_scores for one in answers])
    assert "raw_top" not in alone[0].to_row()


def test_frames_that_come_one_by_one_give_the_windows_of_the_file(recognizer: Recognizer, clip: Path) -> None:
    timeline = recognizer.timeline(clip, stride_seconds=0.1, context="none")
    window = FrameWindow(recognizer.card.input, name="frames")
    answers, found = LiveAnswers(recognizer, context="none"), []
    for seconds, frame in frames_of(clip):
        window.add(frame, seconds)
        if (loaded := window.clip()) is not None:
            found.append(answers.answer(loaded))
        assert len(window) <= 9, "memory is bounded: the 8 frames of a window, and one"
    np.testing.assert_allclose([one.end_seconds for one in found], timeline.ends, atol=1e-6)
    np.testing.assert_allclose([one.raw_scores for one in found], timeline.scores, atol=1e-5)


def test_frames_that_come_too_fast_are_thinned(recognizer: Recognizer) -> None:
    window, frame = FrameWindow(recognizer.card.input, name="fast"), np.zeros((60, 80, 3), np.uint8)
    for number in range(4000):
        window.add(frame, number / 1000)
    assert len(window) <= 40, "4 times the 8 frames of a window, and some"
    clip = window.clip()
    assert clip is not None
    assert clip.views[0].end_seconds == pytest.approx(4.0, abs=0.05)


def test_a_clock_that_begins_anew_and_frames_that_turn(recognizer: Recognizer) -> None:
    window = FrameWindow(recognizer.card.input, name="phone")
    assert window.clip() is None
    for number in range(10):
        window.add(np.zeros((60, 80, 3), np.uint8), 100 + number / 10)
    assert window.clip() is not None
    window.add(np.zeros((80, 60, 3), np.uint8), 0.0)
    assert (len(window), window.clip()) == (1, None)
    for number in range(1, 10):
        window.add(np.zeros((80 if number % 2 else 60, 60 if number % 2 else 80, 3), np.uint8), number / 10)
    assert window.clip() is not None


def test_a_slow_network_sees_the_newest_window(recognizer: Recognizer) -> None:
    """Between two answers five frames come: those after the first four of them are answered for, and no others."""
    allowed, window = threading.Semaphore(10), FrameWindow(recognizer.card.input, name="camera")

    def camera() -> Iterator[tuple[float, NDArray[np.uint8]]]:
        for number in itertools.count():
            allowed.acquire()
            yield number / 10, np.full((60, 80, 3), number % 256, np.uint8)

    ends: list[float] = []
    answers = follow(camera(), window, LiveAnswers(recognizer), 0.001, lambda: len(ends) >= 4)
    for answer in answers:
        ends.append(round(answer.end_seconds, 3))
        allowed.release(5)
        _wait_for(lambda: window.seconds >= 0.9 + 0.5 * len(ends) - 1e-6)
    allowed.release(1)  # its thread ends
    assert ends[1:] == pytest.approx([1.5, 2.0, 2.5])


def _wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)


def test_a_camera_that_fails_ends_the_answers_with_its_error(recognizer: Recognizer) -> None:
    def camera() -> Iterator[tuple[float, NDArray[np.uint8]]]:
        for number in range(10):
            yield number / 10, np.zeros((60, 80, 3), np.uint8)
        raise VideoError("timeout", "/dev/video0: it gave no picture.")

    window = FrameWindow(recognizer.card.input, name="camera")
    answers = follow(camera(), window, LiveAnswers(recognizer), 0.001, lambda: False)
    assert next(answers).end_seconds > 0.7
    with pytest.raises(VideoError, match="no picture"):
        list(answers)


def test_realtime_waits_for_the_file_and_leaves_late_windows_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [50.0]
    moved = SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda s: clock.__setitem__(0, clock[0] + s))
    monkeypatch.setattr(live, "time", moved)
    clips: list[Any] = [SimpleNamespace(views=[SimpleNamespace(end_seconds=0.8 + 0.4 * i)]) for i in range(9)]
    ends, times = [], []
    for clip in live._paced(iter(clips), 0.4, lambda: False):
        ends.append(clip.views[0].end_seconds)
        times.append(clock[0])
        if len(ends) == 2:
            clock[0] += 1.7  # the network takes so long
    assert ends == pytest.approx([0.8, 1.2, 2.8, 3.2, 3.6, 4.0])
    assert times == pytest.approx([50.0, 50.4, 52.1, 52.4, 52.8, 53.2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_seconds": 0}, "every-seconds = 0 should be a finite number above 0"),
        ({"every_seconds": 9}, r"every-seconds = 9 should not exceed the window's 0\.8 s"),
        ({"context_seconds": -1}, "context-seconds = -1"),
        ({"context": "all"}, "context = 'all' should be one of nonlocal, none"),
        ({"source": 0, "start_seconds": 1.0}, "'0' is a camera, which has no start"),
    ],
)
def test_wrong_values(recognizer: Recognizer, clip: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        next(recognizer.watch(**({"source": clip} | arguments)))
