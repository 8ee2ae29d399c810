"""Questions about a point, without a page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from nonlocal_video.app.callbacks.ask_callbacks import BETWEEN_FRAMES, NO_LOOK, Answer, AskCallbacks
from nonlocal_video.app.explanation_store import FRAME_SIDE, ExplanationStore
from nonlocal_video.attention.contact_sheet import ContactSheet
from nonlocal_video.attention.maps import QueryPoint
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.recognizer import Recognizer

BLOCK = "layer3.nonlocal0"


@pytest.fixture
def asking(explanation: Explanation) -> AskCallbacks:
    explanations = ExplanationStore()
    explanations.keep("ann", explanation)
    return AskCallbacks(explanations)


def visitor(name: str = "ann") -> Any:
    return SimpleNamespace(session_hash=name)


def click(asking: AskCallbacks, left: float, top: float, who: str = "ann") -> Answer:
    event = gr.SelectData(None, {"index": [left, top], "value": None})
    return asking.click(BLOCK, "action 0", event, visitor(who))


def test_a_new_look_brings_its_choices(asking: AskCallbacks, explanation: Explanation) -> None:
    questions, invitation, *updates = asking.begin(visitor())
    answer = Answer(*updates)
    assert (questions["visible"], invitation["visible"]) == (True, False)
    assert (answer.block["choices"], answer.block["value"]) == ([(BLOCK, BLOCK)], BLOCK) or answer.block["choices"] == [
        BLOCK
    ]
    assert answer.label["value"] == explanation.prediction.top(1)[0].label
    assert len(answer.label["choices"]) == 5
    assert answer.method["value"] == "attention"
    assert answer.sheet["value"].shape[:2] == ContactSheet.from_frames(asking.explanations.of("ann")).size[::-1]


def test_a_click_asks_what_the_place_attends_to(asking: AskCallbacks, explanation: Explanation) -> None:
    kept = asking.explanations.of("ann")
    assert kept is not None
    left, top = ContactSheet.from_frames(kept).corner(5)
    answer = click(asking, left + kept.frame(0).shape[1] / 2, top + kept.frame(0).shape[0] / 4)
    expected = explanation.query(QueryPoint(explanation.seconds[5], 0.5, 0.25))
    assert (answer.method, answer.frame, answer.x, answer.y) == ("query", 5, 50, 25)
    assert f"Entropy **{expected.entropy_nats:.2f} nats**" in answer.numbers
    assert f"Spread in time **{expected.temporal_spread_seconds:.2f} s**" in answer.numbers
    for strongest in expected.strongest(5):
        assert f"{strongest.value / expected.cells.size:.1%}" in answer.numbers
    assert (
        f"Asked point: {explanation.seconds[5]:.2f} s, 50% from the left, 25% from the top" in answer.sheet["alt_text"]
    )
    assert answer.visitor == "ann", "what renews the time"


@pytest.mark.parametrize("start", [0.31, 0.39])
def test_the_first_frame_may_have_begun_before_the_span(
    recognizer: Recognizer, clip_folder: Path, start: float
) -> None:
    explanation = recognizer.explain_all(clip_folder / "a.mp4", start_seconds=start, end_seconds=start + 0.8)
    assert explanation.query(QueryPoint(explanation.seconds[0], 0.5, 0.5)).query_index == 0


def test_numbers_ask_the_same_as_a_click(asking: AskCallbacks) -> None:
    kept = asking.explanations.of("ann")
    assert kept is not None
    clicked = click(asking, kept.frame(0).shape[1] / 2, kept.frame(0).shape[0] / 2)
    asked = asking.ask(BLOCK, "action 0", 0, 50, 50, visitor())
    assert asked.numbers == clicked.numbers
    assert (asked.sheet["value"] == clicked.sheet["value"]).all()


def test_evidence_for_another_action(asking: AskCallbacks, explanation: Explanation) -> None:
    second = explanation.prediction.top(2)[1]
    answer = asking.show("evidence", BLOCK, second.label, 0, 50, 50, visitor())
    assert f"Evidence for {second.label} {second.score:.2f}" in answer.numbers
    assert (answer.block["visible"], answer.label["visible"]) == (False, True)


@pytest.mark.parametrize(("left", "top"), [(1, 1), (FRAME_SIDE - 1, 10)])
def test_outside_the_square_that_the_network_saw(asking: AskCallbacks, left: float, top: float) -> None:
    with pytest.raises(gr.Error, match="outside the square that the network sees"):
        click(asking, left, top)


def test_between_two_frames(asking: AskCallbacks) -> None:
    with pytest.raises(gr.Error, match=BETWEEN_FRAMES):
        click(asking, FRAME_SIDE + 1, 5)


def test_other_visitors_have_no_look(asking: AskCallbacks) -> None:
    with pytest.raises(gr.Error, match=NO_LOOK):
        click(asking, 100, 100, who="ben")


def test_looks_are_kept_within_the_bound_and_the_longest_unused_goes_first(explanation: Explanation) -> None:
    size = explanation.lightened(FRAME_SIDE).num_bytes
    explanations = ExplanationStore(max_bytes=2 * size)
    for name in ("ann", "ben"):
        explanations.keep(name, explanation)
    assert explanations.of("ann") is not None
    explanations.keep("eve", explanation)
    assert [explanations.of(name) is not None for name in ("ann", "ben", "eve")] == [True, False, True]
    assert explanations.num_bytes == 2 * size
    explanations.keep("eve", explanation)
    assert explanations.num_bytes == 2 * size, "one look a visitor"
    explanations.drop("eve")
    explanations.drop("nobody")
    explanations.drop(None)
    assert explanations.num_bytes == size


def test_a_look_above_the_bound_is_not_kept(explanation: Explanation) -> None:
    explanations = ExplanationStore(max_bytes=100)
    explanations.keep("ann", explanation)
    assert explanations.of("ann") is None
    questions, invitation, *_ = AskCallbacks(explanations).begin(visitor())
    assert (questions["visible"], invitation["visible"]) == (False, True)


def test_a_kept_look_answers_as_the_whole_one(explanation: Explanation) -> None:
    kept = explanation.lightened(FRAME_SIDE)
    assert max(kept.frame(0).shape) == FRAME_SIDE
    assert kept.network_input is None
    point = QueryPoint(0.9, 0.4, 0.6)
    for ours, whole in (
        (kept.query(point), explanation.query(point)),
        (kept.attention_received(), explanation.attention_received()),
        (kept.class_evidence(), explanation.class_evidence()),
        (kept.class_evidence(layer="layer3"), explanation.class_evidence(layer="layer3")),
    ):
        assert (ours.cells == whole.cells).all()
        assert ours.strongest(3) == whole.strongest(3)
