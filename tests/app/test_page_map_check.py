"""The check of a picture, without a page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from nonlocal_video.app.callbacks.ask_callbacks import NO_LOOK, AskCallbacks
from nonlocal_video.app.callbacks.map_check import MapCheck
from nonlocal_video.app.explanation_store import ExplanationStore
from nonlocal_video.attention.maps import AttentionMaps, Method, QueryPoint
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.map_check import quick_check, quick_draws
from nonlocal_video.inference.recognizer import Recognizer

BLOCK, LABEL = "layer3.nonlocal0", "action 1"


@pytest.fixture
def checking(recognizer: Recognizer, explanation: Explanation) -> MapCheck:
    explanations = ExplanationStore()
    explanations.keep("ann", explanation)
    return MapCheck({recognizer.card.name: recognizer}, AskCallbacks(explanations))


def check(checking: MapCheck, method: Method, who: str = "ann") -> tuple[str, list[Any]]:
    """What is said, and the stages that the bar showed."""
    stages: list[Any] = []

    def bar(done: tuple[int, int], **_words: str) -> None:
        stages.append(done)

    visitor: Any = SimpleNamespace(session_hash=who)
    (words,) = checking.check(method, BLOCK, LABEL, 2, 50.0, 50.0, visitor, bar)
    return words, stages


def expected_maps(explanation: Explanation, method: Method) -> AttentionMaps:
    if method == "query":
        return explanation.query(QueryPoint(float(explanation.seconds[2]), 0.5, 0.5), layer=BLOCK)
    return explanation.attention_received(layer=BLOCK) if method == "attention" else explanation.class_evidence(LABEL)


@pytest.mark.parametrize("method", ["query", "attention", "evidence"])
def test_it_says_what_the_library_measures(
    checking: MapCheck, recognizer: Recognizer, explanation: Explanation, method: Method
) -> None:
    words, stages = check(checking, method)
    label = LABEL if method == "evidence" else None
    maps = expected_maps(explanation, method)
    measured = quick_check(recognizer, explanation, maps, label=label)
    assert words.lower() == measured.in_words.lower()
    assert f'"{label or explanation.prediction.top(1)[0].label}"' in words
    total = 2 + quick_draws(maps)
    assert stages == [(done, total) for done in range(total + 1)]


def test_without_features_it_asks_for_a_recognition(checking: MapCheck) -> None:
    with pytest.raises(gr.Error, match=NO_LOOK):
        check(checking, "attention", "bob")
