"""Answers of the page with a video classifier of transformers, without a page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))
from transformers_folders import LABELS, small_folder

from nonlocal_video.app import texts
from nonlocal_video.app.callbacks.asking import Asking
from nonlocal_video.app.callbacks.recognise import Recognition
from nonlocal_video.app.visits import How
from nonlocal_video.attention.maps import QueryPoint
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recognizer]:
    with load(small_folder(tmp_path_factory.mktemp("models") / "videomae"), device="cpu") as recognizer:
        yield recognizer


def test_it_answers_draws_maps_and_is_asked_about_a_point(videomae: Recognizer, clip_folder: Path) -> None:
    recognition = Recognition({"videomae": videomae})
    recognition.begin("ann", clip_folder / "a.mp4", How("videomae"), 1)
    first, last = recognition.run("ann")
    expected = videomae.explain_all(clip_folder / "a.mp4")
    assert {label for label, _ in first["top"]} == set(LABELS)
    assert first["top"][0][0] == expected.prediction.top(1)[0].label
    assert list(last["player"]["maps"]) == ["evidence", "attention"]

    seconds = float(expected.seconds[2])
    question = {"run": last["run"], "seconds": seconds, "x": 0.5, "y": 0.5}
    functions = {function.__name__: function for function in Asking(recognition).functions()}
    answer = functions["point"](question)
    maps = expected.query(QueryPoint(seconds, 0.5, 0.5))
    assert (answer["map"]["kind"], answer["frame"]) == ("query", maps.query_index)
    assert answer["map"]["legend"] == texts.QUERY_LEGEND
    assert [dot["frame"] for dot in answer["dots"]] == [one.index for one in maps.strongest(len(answer["dots"]))]
    assert any(f"{maps.entropy_nats:.2f} nats" in line for line in answer["numbers"])
    other = functions["evidence"]({"run": last["run"], "label": LABELS[1]})
    assert other["map"]["label"] == LABELS[1]
    recognition.results.close()
