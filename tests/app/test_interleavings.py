"""Every answer belongs to the clip that is shown, however uploads, stops, clicks and reloads follow each other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nonlocal_video.app.callbacks.asking import Asking
from nonlocal_video.app.callbacks.moments import Moments
from nonlocal_video.app.callbacks.recognise import Recognition
from nonlocal_video.app.visits import How
from nonlocal_video.inference.recognizer import Recognizer

SEEDS = range(50)
STEPS = 14


class Browser:
    """Model of the page's script: it numbers its choices, and shows no event but those of the last one."""

    def __init__(self, name: str) -> None:
        self.session = name
        self.choice = 0
        self.run = ""
        self.clip: str | None = None
        """Name of the clip that was chosen last."""
        self.shown: dict[str, Any] = {}

    def choose(self, clip: str | None) -> int:
        self.choice += 1
        self.clip, self.run, self.shown = clip or self.clip, "", {}
        return self.choice

    def accept(self, event: dict[str, Any] | None) -> None:
        if event is None or event.get("choice") != self.choice:
            return
        self.run = event.get("run", self.run)
        self.shown = event


@pytest.fixture
def clips(clip_folder: Path, tmp_path: Path) -> list[Path]:
    """Three clips and a file that is not a clip."""
    names = ("a.mp4", "z with space.mp4", "b/note.mp4")
    own = [tmp_path / f"{number} {Path(name).name}" for number, name in enumerate(names)]
    for path, name in zip(own, names, strict=True):
        path.write_bytes((clip_folder / name).read_bytes())
    return own


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_shown_belongs_to_the_last_choice(recognizer: Recognizer, clips: list[Path], seed: int) -> None:
    """Generators are advanced and their events delivered in any order, late ones of earlier runs among them."""
    chance = random.Random(seed)
    recognition = Recognition({"tiny": recognizer})
    asking, moments = Asking(recognition), Moments(recognition)
    browsers = [Browser("ann"), Browser("bob")]
    running: list[tuple[Browser, Iterator[dict[str, Any]]]] = []
    on_the_way: list[tuple[Browser, Any]] = []

    def send(browser: Browser, first: Any) -> None:
        on_the_way.append((browser, first))
        running.append((browser, recognition.run(browser.session)))

    def upload(browser: Browser) -> None:
        clip = chance.choice(clips)
        send(browser, recognition.begin(browser.session, clip, How("tiny", "fast"), browser.choose(clip.name)))

    def change(browser: Browser) -> None:
        if browser.clip:
            how = How("tiny", chance.choice(["1x1", "fast"]), chance.choice(["", "0.25,0,1,0.75"]))
            send(browser, recognition.again(browser.session, how, browser.choose(None)))

    def stop(browser: Browser) -> None:
        run = browser.run
        browser.choose(None)
        recognition.visits.stop(run)

    def reload(browser: Browser) -> None:
        recognition.forget(SimpleNamespace(session_hash=browser.session))
        browser.session, browser.clip = f"{browser.session}+", None
        browser.choice, browser.run, browser.shown = 0, "", {}
        running[:] = [(other, steps) for other, steps in running if other is not browser]
        on_the_way[:] = [(other, event) for other, event in on_the_way if other is not browser]

    def click(browser: Browser) -> None:
        about = {"run": browser.run, "seconds": 0.8, "x": 0.5, "y": 0.5}
        reply = asking.functions()[3](about)
        assert reply.get("run", browser.run) == browser.run
        if browser.shown.get("player"):
            assert "map" in reply, reply

    def advance(_: Browser) -> None:
        if running:
            browser, steps = running[chance.randrange(len(running))]
            event = next(steps, None)
            if event is None:
                running.remove((browser, steps))
            else:
                on_the_way.append((browser, event))

    def deliver(_: Browser) -> None:
        if on_the_way:
            browser, event = on_the_way.pop(chance.randrange(len(on_the_way)))
            browser.accept(event)

    def check() -> None:
        for browser in browsers:
            if browser.shown:
                assert browser.shown["choice"] == browser.choice
                assert browser.shown.get("name", browser.clip) == browser.clip
        assert len(recognition.visits) <= len(browsers)
        assert len(recognition.explanations) <= len(recognition.visits), "nothing is kept of runs that are over"

    acts = [upload, change, stop, reload, click, *[advance] * 4, *[deliver] * 4]
    upload(browsers[0])
    for _ in range(STEPS):
        chance.choice(acts)(chance.choice(browsers))
        check()
    # In the end everything arrives, and each visitor has the answer of the own last choice.
    last = browsers[0]
    clip = clips[seed % 2]
    send(last, recognition.begin(last.session, clip, How("tiny", "fast"), last.choose(clip.name)))
    while running:
        advance(last)
    while on_the_way:
        deliver(last)
        check()
    # Events of one run may come in any order here, which HTTP does not do; the last one has everything.
    assert last.shown["state"] in ("answer", "waiting")
    explanation = recognition.explanations.of(last.run)
    assert explanation is not None
    assert Path(explanation.prediction.path).name == last.clip
    assert all(event["run"] == last.run for event in moments.run(last.session))


def test_a_choice_that_was_overtaken_on_its_way_begins_nothing(recognizer: Recognizer, clips: list[Path]) -> None:
    recognition = Recognition({"tiny": recognizer})
    second = recognition.begin("ann", clips[1], How("tiny"), 2)
    assert second is not None
    assert recognition.begin("ann", clips[0], How("tiny"), 1) is None, "a large clip that was sent before"
    assert recognition.visits.current("ann") is recognition.visits.of(second["run"])


def test_a_run_is_done_once_however_often_it_is_called(recognizer: Recognizer, clips: list[Path]) -> None:
    recognition = Recognition({"tiny": recognizer})
    recognition.begin("ann", clips[0], How("tiny", "fast"), 1)
    first, second = recognition.run("ann"), recognition.run("ann")
    assert next(first)["state"] == "answer"
    assert list(second) == []


def test_a_choice_that_comes_after_its_page_has_closed_waits_for_nothing(
    recognizer: Recognizer, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recognition = Recognition({"tiny": recognizer})
    assert recognition.begin("ann", clips[0], How("tiny"), 1) is not None
    recognition.forget(SimpleNamespace(session_hash="ann"))
    assert recognition.begin("ann", clips[1], How("tiny"), 2) is None
    assert recognition.visits.waiting == 0
    monkeypatch.setattr("nonlocal_video.app.visits.LATE_SECONDS", 0.0)
    assert recognition.begin("ann", clips[1], How("tiny"), 3) is not None, "a page whose connection came back"


def test_a_stopped_run_says_nothing_more(recognizer: Recognizer, clips: list[Path]) -> None:
    recognition = Recognition({"tiny": recognizer})
    begun = recognition.begin("ann", clips[0], How("tiny", "fast"), 1)
    assert begun is not None
    steps = recognition.run("ann")
    next(steps)
    recognition.visits.stop(begun["run"])
    assert list(steps) == []
    assert len(recognition.explanations) == 0


def test_nobody_learns_of_others(recognizer: Recognizer, clips: list[Path]) -> None:
    """A question without the secret part of a run's identity gets nothing."""
    recognition = Recognition({"tiny": recognizer})
    begun = recognition.begin("ann", clips[0], How("tiny", "fast"), 1)
    assert begun is not None
    list(recognition.run("ann"))
    number = begun["run"].split(".")[0]
    point = {"seconds": 0.8, "x": 0.5, "y": 0.5}
    ask = Asking(recognition).functions()[3]
    others: list[object] = [number, f"{number}.", "", None, ["x"], {}]
    for identity in others:
        assert ask({**point, "run": identity})["state"] == "gone"
    assert "map" in ask({**point, "run": begun["run"]})
