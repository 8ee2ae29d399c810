"""Models on offer, their download where it is allowed, and two of them on one clip."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from typer.testing import CliRunner

import nonlocal_video.app
from nonlocal_video.app import texts_more
from nonlocal_video.app.application import create_app
from nonlocal_video.app.callbacks import model_list
from nonlocal_video.app.callbacks.comparing import Comparing, Update
from nonlocal_video.app.callbacks.model_list import ModelList
from nonlocal_video.app.results.store import Results
from nonlocal_video.cli.main import app as cli
from nonlocal_video.errors import ModelError, UsageError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.zoo.listing import recommended_rows

OFFERED = "i3d-nl-r50-8x8-k400-pyslowfast"
NON_COMMERCIAL = "i3d-nl-r50-32x4-k400-caffe2"


def pressed(name: str, *, accepted: bool = False) -> Any:
    return SimpleNamespace(_data={"name": name, "accepted": accepted})


@pytest.fixture(autouse=True)
def _no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONLOCAL_VIDEO_WEIGHTS", str(tmp_path))


def test_the_list_has_licence_size_and_buttons_only_where_allowed(recognizer: Recognizer) -> None:
    closed, open_ = (ModelList({"tiny": recognizer}, allow).as_html() for allow in (False, True))
    assert "<strong>tiny</strong>" in closed
    notes = ModelList({"tiny": SimpleNamespace(card=replace(recognizer.card, notes=("Of layer4.",)))}).as_html()
    assert "</summary><p>Of layer4.</p></details>" in notes
    for row in recommended_rows():
        assert row["name"] in closed
        assert row["licence"] in closed
    assert "MB" in closed
    assert "<button" not in closed
    assert "--allow-pull" in closed
    names = re.findall(r"data-name='([^']+)'", open_)
    assert names == [row["name"] for row in recommended_rows() if row["state"] == "no"]
    assert open_.count("type='checkbox'") == sum(row["non_commercial"] for row in recommended_rows())


def test_a_download_tells_how_far_it_is(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def fake(name: str, *, accept_licence: bool, progress: Callable[[int, int | None], None]) -> None:
        asked.append((name, accept_licence))
        progress(10_000_000, 50_000_000)

    monkeypatch.setattr(model_list, "pull", fake)
    updates = list(ModelList({"tiny": recognizer}, True).pull(pressed(OFFERED)))
    assert updates[0].status == f"Downloading {OFFERED}: 0 MB"
    assert updates[-1].status == texts_more.MODELS["loaded"].format(name=OFFERED)
    assert OFFERED in updates[-1].models
    list(ModelList({"tiny": recognizer}, True).pull(pressed(NON_COMMERCIAL, accepted=True)))
    assert asked == [(OFFERED, False), (NON_COMMERCIAL, True)]


@pytest.mark.parametrize(
    ("allow", "name", "words"),
    [
        (False, OFFERED, "--allow-pull"),
        (True, "https://evil.example/x", "Only the recommended"),
        (True, "x3d-m-k400", "Only the recommended"),
        (True, NON_COMMERCIAL, "may not be used commercially"),
    ],
)
def test_other_downloads_are_refused(recognizer: Recognizer, allow: bool, name: str, words: str) -> None:
    with pytest.raises(gr.Error, match=words):
        list(ModelList({"tiny": recognizer}, allow).pull(pressed(name)))


def test_a_failed_download_says_why(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str, **_: Any) -> None:
        raise ModelError("The publisher does not answer.")

    monkeypatch.setattr(model_list, "pull", fake)
    with pytest.raises(gr.Error, match=r"The publisher does not answer\."):
        list(ModelList({"tiny": recognizer}, True).pull(pressed(OFFERED)))


@pytest.fixture
def comparing(recognizer: Recognizer) -> Iterator[Comparing]:
    results = Results()
    yield Comparing({"before": recognizer, "after": recognizer}, results)
    results.close()


VISITOR: Any = SimpleNamespace(session_hash="one")


def compared(comparing: Comparing, clip: Path, second: str = "after") -> list[Update]:
    comparing.clips["one"] = clip
    return list(comparing.compare("before", second, VISITOR))


def test_the_same_clip_by_two_models(comparing: Comparing, recognizer: Recognizer, clip_folder: Path) -> None:
    clip = clip_folder / "a.mp4"
    updates = compared(comparing, clip)
    assert [len(update.players or []) for update in updates] == [0, 1, 2]
    expected = recognizer.classify(clip)
    for side in updates[-1].players:
        assert [label for label, _ in side["top"]] == [one.label for one in expected.top(5)]
        assert (side["start"], side["seconds"]) == (expected.views[0].start_seconds, expected.views[0].playback_seconds)
        assert comparing.results.file(side["result"], "evidence.mp4").is_file(), "what the player plays"
    said = updates[-1].status
    assert (said["state"], said["headline"], said["doing"]) == ("done", f"Both say {expected.top1.label}.", "a.mp4")


@pytest.mark.parametrize(
    ("clip", "second", "words"), [("a.mp4", "before", "two different models"), ("gone.mp4", "after", "upload it again")]
)
def test_nothing_to_compare(comparing: Comparing, clip_folder: Path, clip: str, second: str, words: str) -> None:
    said = compared(comparing, clip_folder / clip, second)[-1].status
    assert said["state"] == "error"
    assert words in said["headline"] + said["doing"]


def test_only_uploads_are_compared(comparing: Comparing, clip_folder: Path) -> None:
    chosen: Any = SimpleNamespace(_data={"paths": [str(clip_folder / "a.mp4")]})
    assert comparing.choose(chosen, VISITOR).status["state"] == "error"
    assert list(comparing.compare("before", "after", VISITOR)) == []


def test_a_comparison_that_was_overtaken_says_nothing_more(comparing: Comparing, clip_folder: Path) -> None:
    comparing.clips["one"] = clip_folder / "a.mp4"
    earlier = comparing.compare("before", "after", VISITOR)
    next(earlier)
    assert len(compared(comparing, clip_folder / "b" / "c.mp4")[-1].players) == 2
    assert list(earlier) == []
    later = comparing.compare("before", "after", VISITOR)
    next(later)
    comparing.leave(VISITOR)
    assert list(later) == []
    assert not comparing.clips


def test_two_models_of_one_name_are_refused(recognizer: Recognizer) -> None:
    with pytest.raises(UsageError, match="Two models are called tiny"):
        create_app([recognizer, recognizer])


@pytest.mark.parametrize(
    ("words", "variable", "models"),
    [
        ([], "", ["default"]),
        ([], "/a folder/mine", ["/a folder/mine"]),
        (["--model", "one", "--model", "two"], "mine", ["one", "two"]),
    ],
)
def test_serve_takes_several_models(
    words: list[str], variable: str, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[dict[str, Any]] = []
    monkeypatch.setattr(nonlocal_video.app, "serve", lambda **how: served.append(how), raising=False)
    done = CliRunner().invoke(cli, ["serve", *words], env={"NONLOCAL_VIDEO_MODEL": variable}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [(how["model"], how["allow_pull"]) for how in served] == [(models, False)]
