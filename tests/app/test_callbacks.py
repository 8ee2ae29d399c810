"""What the page answers, without a page."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from nonlocal_video.app.callbacks.recognise import CANCELLED, INVITATION, MAX_STRIP_FRAMES, Callbacks, Outcome
from nonlocal_video.app.messages import INTERNAL_ERROR
from nonlocal_video.attention.maps import AttentionMaps
from nonlocal_video.errors import ModelError, UsageError, VideoError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.video.decode import VideoReader


@pytest.fixture
def callbacks(recognizer: Recognizer) -> Callbacks:
    return Callbacks({"tiny": recognizer})


@pytest.fixture
def clip(clip_folder: Path) -> str:
    return str(clip_folder / "a.mp4")


def shown_scores(recognizer: Recognizer, clip: str, **how: Any) -> dict[str, float]:
    return {scored.label: scored.score for scored in recognizer.classify(clip, **how).top(5)}


@pytest.mark.parametrize(
    ("views", "how", "used"),
    [
        ("1x1", {}, "1x1 view"),
        ("fast", {"fast": True}, "1x1 view(s) of 4 frames"),
        ("3x1", {"views": "3x1"}, "3x1 view"),
    ],
)
def test_scores_are_those_of_the_recognizer(
    callbacks: Callbacks, recognizer: Recognizer, clip: str, views: str, how: dict[str, Any], used: str
) -> None:
    first = next(callbacks.recognise(clip, "tiny", views, "attention"))

    assert first.scores == pytest.approx(shown_scores(recognizer, clip, **how))
    assert list(first.scores) == list(shown_scores(recognizer, clip, **how)), "best first"
    assert "tiny looked at" in first.status
    assert used in first.status
    assert first.results["visible"] is True
    assert first.overlay is None, "the last clip's overlay must go"


@pytest.mark.parametrize("overlay", ["attention", "evidence"])
def test_overlays_follow_the_scores(callbacks: Callbacks, clip: str, overlay: Any) -> None:
    outcomes = callbacks.recognise(clip, "tiny", "1x1", overlay)
    next(outcomes)
    second = next(outcomes)

    with VideoReader() as reader:
        info = reader.probe(second.overlay)
    assert (info.codec, info.num_frames) == ("h264", 8)
    times = [caption for _, caption in second.strip]
    assert times == sorted(set(times)), "every frame once, in order"
    assert 1 < len(times) <= MAX_STRIP_FRAMES
    assert list(outcomes) == []
    assert not Path(second.overlay).exists(), "nothing is left behind"


def test_the_look_is_kept_for_its_visitor_until_the_clip_changes(callbacks: Callbacks, clip: str) -> None:
    request: Any = SimpleNamespace(session_hash="ann")
    list(callbacks.recognise(clip, "tiny", "3x1", "attention", request=request))
    kept = callbacks.explanations.of("ann")
    assert kept is not None
    assert len(kept.prediction.views) == 3, "the answer that stands on the page"
    callbacks.forget(request)
    assert len(callbacks.explanations) == 0


def test_a_looped_clip_shows_each_frame_once(callbacks: Callbacks, recognizer: Recognizer, clip_folder: Path) -> None:
    short = str(clip_folder / "z with space.mp4")  # 5 frames at 10/s; the view wants 8
    scores, overlays = callbacks.recognise(short, "tiny", "1x1", "attention")

    assert "looped" in scores.status
    assert [caption for _, caption in overlays.strip] == ["0.00 s", "0.10 s", "0.20 s", "0.30 s", "0.40 s"]


def test_a_caption_has_the_score_that_stands_on_the_page(
    callbacks: Callbacks, recognizer: Recognizer, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    draw = AttentionMaps.draw_frame
    monkeypatch.setattr(
        AttentionMaps, "draw_frame", lambda maps, index: drawn.append(maps.caption) or draw(maps, index)
    )
    list(callbacks.recognise(clip, "tiny", "3x1", "evidence"))

    best = recognizer.classify(clip, views="3x1").top(1)[0]
    assert set(drawn) == {f"evidence for {best.label} {best.score:.2f}"}


class Broken:
    """A recognizer that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def explain_all(self, path: Path, *, fast: bool, region: str, on_stage: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (VideoError("corrupt", "{folder}/bad <b>.mp4: it is cut off."), "bad &lt;b&gt;.mp4: it is cut off."),
        (VideoError("not_a_video", "bad.mp4: it is not a video."), "bad.mp4: it is not a video."),
        (UsageError("views = '0x0' should be CLIPSxCROPS."), "views = &#x27;0x0&#x27; should be CLIPSxCROPS."),
        (ModelError("Model 'x' gave nothing."), "Model &#x27;x&#x27; gave nothing."),
        (RuntimeError("{folder}: a secret"), INTERNAL_ERROR),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, message: str
) -> None:
    clip = tmp_path / "bad <b>.mp4"
    clip.touch()
    if isinstance(error, VideoError):
        error = VideoError(error.code, error.message.format(folder=tmp_path))
    elif isinstance(error, RuntimeError):
        error = RuntimeError(str(error).format(folder=tmp_path))
    callbacks = Callbacks({"broken": Broken(error)})

    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as raised:
        list(callbacks.recognise(str(clip), "broken", "1x1", "attention"))

    assert raised.value.message == message
    assert raised.value.print_exception is False
    assert bool(caplog.records) == (message == INTERNAL_ERROR), "only what we did not expect is logged"


def test_a_bad_file_gives_the_recognizers_own_words(callbacks: Callbacks, clip_folder: Path) -> None:
    with pytest.raises(gr.Error) as raised:
        list(callbacks.recognise(str(clip_folder / "b" / "note.mp4"), "tiny", "1x1", "attention"))
    assert "note.mp4" in raised.value.message
    assert str(clip_folder) not in raised.value.message


def test_no_clip(callbacks: Callbacks) -> None:
    with pytest.raises(gr.Error, match="Choose a clip"):
        next(callbacks.recognise(None, "tiny", "1x1", "attention"))


def test_a_clip_that_was_deleted(callbacks: Callbacks, tmp_path: Path) -> None:
    with pytest.raises(gr.Error, match="upload it again"):
        next(callbacks.recognise(str(tmp_path / "gone.mp4"), "tiny", "1x1", "attention"))


def test_a_folder_is_no_clip(callbacks: Callbacks, clip_folder: Path) -> None:
    """The recognizer would take a folder; nobody can upload one."""
    with pytest.raises(gr.Error):
        next(callbacks.recognise(str(clip_folder), "tiny", "3x1", "attention"))


@pytest.mark.parametrize(("how", "words"), [("choose", INVITATION), ("cancel", CANCELLED)])
def test_another_clip_and_a_cancel_take_the_last_answer_away(
    callbacks: Callbacks, clip: str, how: str, words: str
) -> None:
    request: Any = SimpleNamespace(session_hash="ann")
    list(callbacks.recognise(clip, "tiny", "fast", "attention", request=request))
    outcome = getattr(callbacks, how)(request)
    assert outcome == Outcome(words, gr.update(visible=False), None, None, None)
    assert len(callbacks.explanations) == 0


def test_another_model_brings_its_choices(callbacks: Callbacks) -> None:
    views, overlays, notes = callbacks.offer("tiny")
    assert views["value"] == "1x1"
    assert overlays["value"] == "evidence"
    assert notes == ""


def test_a_region_is_looked_at_alone(callbacks: Callbacks, clip_folder: Path) -> None:
    """Whether or not views are averaged; what is wrong with it is said in a sentence."""
    clip = str(clip_folder / "a.mp4")
    for views in ("1x1", "3x1", "fast"):
        *_, last = callbacks.recognise(clip, "tiny", views, "attention", "0.25,0,1,0.75")
        assert "of region 0.25,0,1,0.75" in last.status
        assert "25% to 100% of its width" in last.status
    *_, last = callbacks.recognise(clip, "tiny", "1x1", "attention", " ")
    assert "region" not in last.status
    with pytest.raises(gr.Error, match="should be X0,Y0,X1,Y1"):
        list(callbacks.recognise(clip, "tiny", "1x1", "attention", "left"))
