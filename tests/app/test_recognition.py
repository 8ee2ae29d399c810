"""Answers of the page, without a page."""

from __future__ import annotations

import base64
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch

from nonlocal_video.app import texts
from nonlocal_video.app.callbacks.asking import Asking
from nonlocal_video.app.callbacks.choosing import Choosing
from nonlocal_video.app.callbacks.recognise import MAX_WAITING, Recognition
from nonlocal_video.app.components.heat import packed
from nonlocal_video.app.messages import GONE, INTERNAL_ERROR
from nonlocal_video.app.results.answer import answer_of
from nonlocal_video.app.visits import How
from nonlocal_video.errors import ModelError, UsageError, VideoError
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.video.decode import VideoReader


@pytest.fixture
def recognition(recognizer: Recognizer) -> Recognition:
    return Recognition({"tiny": recognizer})


@pytest.fixture
def clip(clip_folder: Path) -> Path:
    return clip_folder / "a.mp4"


def events(recognition: Recognition, clip: Path, **how: Any) -> list[dict[str, Any]]:
    begun = recognition.begin("ann", clip, How("tiny", **how), 1)
    assert begun is not None
    assert begun["state"] == "waiting"
    return list(recognition.run("ann"))


@pytest.mark.parametrize(
    ("views", "how", "used"),
    [
        ("1x1", {}, "1 view"),
        ("fast", {"fast": True}, "1 view of 4 frames"),
        ("3x1", {"views": "3x1"}, "3x1 view"),
    ],
)
def test_scores_are_those_of_the_recognizer(
    recognition: Recognition, recognizer: Recognizer, clip: Path, views: str, how: dict[str, Any], used: str
) -> None:
    first, last = events(recognition, clip, views=views)
    expected = [(one.label, one.score) for one in recognizer.classify(clip, **how).top(5)]
    assert [label for label, _ in first["top"]] == [label for label, _ in expected], "best first"
    assert [score for _, score in first["top"]] == pytest.approx([score for _, score in expected], abs=1e-4)
    assert used in first["details"][0]
    assert "player" not in first, "the scores come first"
    assert last["top"] == first["top"]


def test_those_who_wait_at_the_api_count(recognizer: Recognizer, clip: Path) -> None:
    recognition = Recognition({"tiny": recognizer}, others=lambda: MAX_WAITING - 1)
    first = recognition.begin("ann", clip, How("tiny"), 1)
    assert first is not None
    assert first["state"] == "waiting"
    refused = recognition.begin("ben", clip, How("tiny"), 1)
    assert refused is not None
    assert refused["words"] == texts.BUSY.format(count=MAX_WAITING)


def test_the_player_gets_the_span_that_was_seen_and_maps_over_it(recognition: Recognition, clip: Path) -> None:
    steps = iter_of(recognition, clip)
    next(steps)
    player = next(steps)["player"]
    with VideoReader() as reader:
        info = reader.probe(player["file"]["path"])
    assert (info.codec, info.num_frames) == ("h264", 8)
    assert info.duration_seconds == pytest.approx(player["playback"], abs=0.05)
    assert player["seconds"] == sorted(player["seconds"])
    for heat in player["maps"].values():
        frames, rows, columns = heat["shape"]
        assert frames == 8
        assert len(base64.b64decode(heat["data"])) == frames * rows * columns
        assert len(heat["curve"]) == frames
    assert list(steps) == []
    assert not Path(player["file"]["path"]).exists(), "nothing is left behind"


def iter_of(recognition: Recognition, clip: Path) -> Any:
    recognition.begin("ann", clip, How("tiny"), 1)
    return recognition.run("ann")


def test_packed_maps_lie_where_the_library_draws_them(explanation: Explanation) -> None:
    """The browser's drawing, in NumPy: cells at their centres, a byte for the strength."""
    maps = explanation.class_evidence()
    heat = packed(maps, legend="")
    frames, rows, columns = heat["shape"]
    values = np.frombuffer(base64.b64decode(heat["data"]), np.uint8).reshape(frames, rows, columns) / 255
    low, high = maps.value_range()
    height, width = maps.frame(0).shape[:2]
    for index in (0, frames - 1):
        drawn = np.clip((maps.frame_map(index) - low) / (high - low), 0, 1)
        for row in range(rows):
            for column in range(columns):
                y, x = heat["y"][0] + row * heat["y"][1], heat["x"][0] + column * heat["x"][1]
                place = drawn[min(int(y * height), height - 1), min(int(x * width), width - 1)]
                if not np.isnan(place):
                    assert values[index, row, column] == pytest.approx(place, abs=0.1)


def test_a_look_is_kept_until_the_clip_changes(recognition: Recognition, clip: Path) -> None:
    last = events(recognition, clip, views="3x1")[-1]
    kept = recognition.explanations.of(last["run"])
    assert kept is not None
    assert len(kept.prediction.views) == 3, "the answer that stands on the page"
    recognition.forget(SimpleNamespace(session_hash="ann"))
    assert len(recognition.explanations) == len(recognition.visits) == 0


class Broken:
    """A recognizer that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def explain_all(self, path: Path, **_: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "message", "title", "refused"),
    [
        (VideoError("corrupt", "{folder}/bad <b>.mp4: it is cut off."), "bad <b>.mp4: it is cut off.", "corrupt", True),
        (VideoError("internal", "bad <b>.mp4: try again."), "bad <b>.mp4: try again.", "other", False),
        (UsageError("views = '0x0' should be CLIPSxCROPS."), "views = '0x0' should be CLIPSxCROPS.", "setting", False),
        (ModelError("Model 'x' gave nothing."), "Model 'x' gave nothing.", "other", False),
        (RuntimeError("{folder}: a secret"), INTERNAL_ERROR, "other", False),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, message: str, title: str, refused: bool
) -> None:
    clip = tmp_path / "bad <b>.mp4"
    clip.touch()
    if isinstance(error, VideoError):
        error = VideoError(error.code, error.message.format(folder=tmp_path))
    elif isinstance(error, RuntimeError):
        error = RuntimeError(str(error).format(folder=tmp_path))
    recognition = Recognition({"tiny": Broken(error)})
    with caplog.at_level(logging.ERROR):
        (event,) = events(recognition, clip)
    assert (event["state"], event["words"]) == ("error", message)
    assert (event["title"], event["refused"]) == (texts.TROUBLES[title], refused)
    assert bool(caplog.records) == (message == INTERNAL_ERROR), "only what we did not expect is logged"


def test_what_is_gone_or_too_much_is_said_at_once(recognition: Recognition, clip: Path, tmp_path: Path) -> None:
    gone = recognition.begin("ann", tmp_path / "gone.mp4", How("tiny"), 1)
    assert (gone["choice"], gone["state"], gone["words"], gone["refused"]) == (1, "error", GONE, True)
    again = recognition.again("ann", How("tiny"), 2)
    assert (again["choice"], again["state"], again["words"], again["refused"]) == (2, "error", texts.EXPIRED, True)
    for number in range(MAX_WAITING):
        assert recognition.begin(f"visitor {number}", clip, How("tiny"), 1)["state"] == "waiting"
    busy = recognition.begin("ann", clip, How("tiny"), 3)
    assert "is busy: 32 clips" in busy["words"]
    assert not busy["refused"], "the same clip can be tried again"


def test_who_waits_hears_how_many_are_before(recognition: Recognition, clip: Path) -> None:
    runs = [recognition.begin(name, clip, How("tiny", "fast"), 1)["run"] for name in ("ann", "bob", "eve")]
    assert [recognition.standing(run)["count"] for run in runs] == [0, 1, 2]
    list(recognition.run("ann"))
    assert [recognition.standing(run)["count"] for run in runs[1:]] == [0, 1]
    recognition.visits.stop(runs[1])
    assert recognition.standing(runs[2])["count"] == 0
    assert recognition.standing("1.guess") == {"state": "gone"}


def test_who_waits_hears_when_the_own_answer_comes(recognition: Recognition, clip: Path) -> None:
    how, pace = How("tiny", "fast"), 10.0
    for stage in ("reading", "network"):
        recognition.visits._pace["tiny", "fast", stage] = pace
    ann, bob, eve = (recognition.begin(name, clip, how, 1)["run"] for name in ("ann", "bob", "eve"))
    recognition.visits.claim("ann").stage_began -= 4  # 16 s of its 20 s are left
    assert recognition.standing(ann)["seconds"] == 16
    recognition.visits.of(eve).stage_began -= 56  # waited for this long
    waits = [recognition.standing(run) for run in (bob, eve)]
    assert [(one["count"], one["seconds"]) for one in waits] == [(1, 16 + 20), (2, 16 + 20 + 20)]
    assert [one["done"] for one in waits] == pytest.approx([0, 0.5], abs=0.05)


class Mean(torch.nn.Module):
    """A network of somebody's own, which says nothing of itself."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return 10 * clips.mean(dim=(2, 3, 4))


def test_a_network_without_maps_answers_and_says_why_there_are_none(clip: Path, tmp_path: Path) -> None:
    spec = InputSpec(num_frames=4, frames_per_second=10, short_side=32, crop=32, mean=(0, 0, 0), std=(1, 1, 1))
    card = ModelCard(name="tiny", architecture="", config={}, input=spec, labels=("red", "green", "blue"))
    with Recognizer(Mean(), card, device="cpu") as mean:
        recognition = Recognition({"tiny": mean})
        scores, last = events(recognition, clip)
        assert scores["top"] == last["top"]
        assert not last["long"], "its moments cannot be compared"
        assert sum(score for _, score in last["top"]) == pytest.approx(1, abs=1e-3)
        assert (last["player"]["maps"], last["player"]["words"]) == ({}, texts.NO_MAPS)
        assert last["player"]["file"]
        asking = {function.__name__: function for function in Asking(recognition).functions()}
        question = {"run": last["run"], "label": "red", "seconds": 0.8, "x": 0.5, "y": 0.5}
        assert asking["evidence"](question)["words"] == texts.NO_EVIDENCE
        assert asking["point"](question)["words"] == texts.NO_BLOCK
        kept = recognition.results.get(last["result"])
        deadline = time.monotonic() + 20
        while not kept.words and time.monotonic() < deadline:
            time.sleep(0.02)
            kept = recognition.results.get(last["result"])
        shown = answer_of(kept)
        assert ("player" in shown, shown["words"]) == (False, texts.NO_MAPS)


def test_a_part_of_the_picture_is_looked_at_alone(recognition: Recognition, clip: Path) -> None:
    for views in ("1x1", "3x1", "fast"):
        last = events(recognition, clip, views=views, region="0.25,0,1,0.75")[-1]
        assert "of region 0.25,0,1,0.75" in last["details"][0]
        assert last["region"] == "0.25,0,1,0.75"
    (wrong,) = events(recognition, clip, region="left")
    assert "should be X0,Y0,X1,Y1" in wrong["words"]


def test_only_what_was_sent_may_be_named(
    recognition: Recognition, clip: Path, monkeypatch: Any, tmp_path: Path
) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    sent = uploads / "sent.mp4"
    sent.write_bytes(clip.read_bytes())
    (uploads / "link.mp4").symlink_to(clip)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    choosing = Choosing(recognition, [clip])
    visitor: Any = SimpleNamespace(session_hash="ann")

    def begun(number: int, **chosen: Any) -> str:
        event = gr.EventData(None, {"choice": number, **chosen})
        return choosing.begin("tiny", "fast", "", None, None, event, visitor)[0]["state"]

    assert begun(1, path=str(sent)) == "waiting"
    assert begun(2, sample=0) == "waiting"
    for number, path in enumerate(
        [str(clip), str(uploads / "link.mp4"), f"{uploads}/../{clip.name}", "", str(uploads)]
        + [f"{uploads}/{name}" for name in ("a\0b", "\ud800", "x" * 300, "x" * 5000)]
    ):
        assert begun(10 + number, path=path) == "error"
    assert begun(20, sample=1) == begun(21, sample=-1) == begun(22) == "error"


def test_an_answer_that_was_not_heard_is_said_once_more(recognition: Recognition, clip: Path) -> None:
    begun = recognition.begin("ann", clip, How("tiny"), 1)
    assert begun is not None
    assert list(recognition.unheard("ann")) == []
    assert "said" not in recognition.standing(begun["run"])
    steps = recognition.run("ann")
    first = next(steps)
    assert list(recognition.unheard("ann")) == [first]
    last = next(steps)
    assert next(steps, None) is None
    assert recognition.standing(begun["run"])["said"]
    (again,) = recognition.unheard("ann")
    assert again["player"].pop("file") != last["player"].pop("file")
    assert again == last
    recognition.visits.stop(begun["run"])
    assert list(recognition.unheard("ann")) == []
    assert list(recognition.unheard("ben")) == []


def test_an_error_that_was_not_heard_is_said_once_more(recognition: Recognition, tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video\n" * 100)
    (error,) = events(recognition, path)
    assert error["state"] == "error"
    assert list(recognition.unheard("ann")) == [error]
