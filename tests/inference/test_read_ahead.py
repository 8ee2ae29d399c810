"""A timeline's next windows come while the network is busy, and no further ahead than a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import nonlocal_video as nlv
from nonlocal_video.inference import windows
from nonlocal_video.inference.read_ahead import read_ahead
from nonlocal_video.inference.sliding import slide


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Iterator[nlv.Recognizer]:
    with nlv.load(tiny_model, device="cpu") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clip(colour_clip: Callable[[int], Path]) -> Path:
    """62 frames of changing colours."""
    return colour_clip(62)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.slow
def test_later_windows_are_decoded_while_the_network_is_busy(recognizer, clip: Path, monkeypatch, batch_size) -> None:
    expected = recognizer.timeline(clip, batch_size=batch_size)
    resize, predict, num_read, further = windows.resize_region, recognizer.predict, [0], threading.Event()

    def counted(*arguments: Any, **options: Any) -> Any:
        num_read[0] += 1
        if num_read[0] > 8 + 4 * (batch_size - 1):  # more than the first batch needs
            further.set()
        return resize(*arguments, **options)

    def slow(*arguments: Any, **options: Any) -> Any:
        assert further.wait(30), "the next window's frames come while this one is with the network"
        return predict(*arguments, **options)

    monkeypatch.setattr(windows, "resize_region", counted)
    monkeypatch.setattr(recognizer, "predict", slow)
    timeline = recognizer.timeline(clip, batch_size=batch_size)
    assert timeline.scores.tobytes() == expected.scores.tobytes()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_only_a_batch_of_windows_is_decoded_ahead(recognizer, clip: Path, monkeypatch) -> None:
    made: list[int] = []
    clips = windows._clips

    def counted(*arguments: Any) -> Any:
        for window in clips(*arguments):
            made.append(1)
            yield window

    monkeypatch.setattr(windows, "_clips", counted)
    with closing(slide(recognizer, clip, batch_size=2)) as steps:
        next(steps)
        time.sleep(0.5)
        assert len(made) <= 2 + 2 + 1
    done = len(made)
    time.sleep(0.2)
    assert len(made) == done, "nothing runs after the end"


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("broken")

    seen: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        take(read_ahead(items(), 2), seen)
    assert seen == [0, 1, 2]
    assert list(read_ahead(iter("abc"), 5)) == ["a", "b", "c"]


def take(items: Iterator[int], into: list[int]) -> None:
    for item in items:
        into.append(item)
