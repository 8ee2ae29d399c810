"""Questions about an answer, without a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nonlocal_video.app import sentences, texts
from nonlocal_video.app.callbacks import moments as moments_of_a_clip
from nonlocal_video.app.callbacks.asking import Asking
from nonlocal_video.app.callbacks.moments import Moments
from nonlocal_video.app.callbacks.recognise import Recognition
from nonlocal_video.app.explanation_store import FRAME_SIDE, ExplanationStore
from nonlocal_video.app.visits import How
from nonlocal_video.attention.maps import QueryPoint, Target
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.map_check import quick_check
from nonlocal_video.inference.recognizer import Recognizer


@pytest.fixture
def recognition(recognizer: Recognizer, clip_folder: Path) -> Recognition:
    recognition = Recognition({"tiny": recognizer})
    recognition.begin("ann", clip_folder / "a.mp4", How("tiny"), 1)
    list(recognition.run("ann"))
    return recognition


def asked(recognition: Recognition, what: str, **about: Any) -> dict[str, Any]:
    functions = {function.__name__: function for function in Asking(recognition).functions()}
    run = recognition.visits.current("ann")
    assert run is not None
    return functions[what]({"run": run.identity, **about})


def test_a_point_is_answered_as_the_library_does(recognition: Recognition, explanation: Explanation) -> None:
    seconds = float(explanation.seconds[5])
    reply = asked(recognition, "point", seconds=seconds, x=0.5, y=0.25)
    expected = explanation.query(QueryPoint(seconds, 0.5, 0.25))
    total = float(expected.cells.clip(min=0).sum())
    assert reply["frame"] == 5
    strongest = expected.strongest(8)
    assert [dot["share"] for dot in reply["dots"]] == pytest.approx([one.value / total for one in strongest], abs=1e-3)
    assert [dot["frame"] for dot in reply["dots"]] == [one.index for one in strongest]
    assert reply["words"] == sentences.attends(expected, strongest, total)
    target = Target(index=7, seconds=seconds + 0.5, x=0.1, y=0.1, value=0.3 * total)
    words = "This point attends most to the upper left, 0.5 s later: 30% of its attention."
    assert sentences.attends(expected, [target], total) == words
    assert any(f"{expected.entropy_nats:.2f} nats" in line for line in reply["numbers"])


def test_outside_of_what_was_seen(recognition: Recognition) -> None:
    assert asked(recognition, "point", seconds=0.8, x=0.01, y=0.5)["words"] == texts.OUTSIDE


def test_evidence_for_another_label(recognition: Recognition, explanation: Explanation) -> None:
    second = explanation.prediction.top(2)[1].label
    reply = asked(recognition, "evidence", label=second)
    assert reply["map"]["label"] == second
    assert second in reply["map"]["legend"]
    assert asked(recognition, "evidence", label="nonsense")["words"].startswith("label = 'nonsense'")


@pytest.mark.parametrize("kind", ["attention", "evidence"])
def test_a_check_says_what_the_library_measures(
    recognition: Recognition, recognizer: Recognizer, explanation: Explanation, kind: str
) -> None:
    label = explanation.prediction.top(1)[0].label
    words = asked(recognition, "check", kind=kind, label=label)["words"]
    maps = explanation.class_evidence(label) if kind == "evidence" else explanation.attention_received()
    measured = quick_check(recognizer, explanation, maps, label=label if kind == "evidence" else None)
    assert words.lower() == measured.in_words.lower()


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (0.5, 0.5, "the middle"),
        (0.1, 0.1, "the upper left"),
        (0.9, 0.5, "the right"),
        (0.5, 0.9, "the lower middle"),
    ],
)
def test_places_in_words(x: float, y: float, words: str) -> None:
    assert sentences.place(x, y) == words


def test_times_and_shares_in_words() -> None:
    assert sentences.when(0.0) == "at the same moment"
    assert (sentences.when(0.62), sentences.when(-1.25)) == ("0.6 s later", "1.2 s earlier")
    assert [sentences.percent(share) for share in (0.98, 0.998, 1.0)] == ["98%", "over 99%", "over 99%"]
    shares = [0.0, 0.0004, 0.006, 0.98, 0.998, 1.0]
    assert [sentences.figure(share) for share in shares] == ["<1%", "<1%", "1%", "98%", ">99%", ">99%"]


@pytest.mark.parametrize("start", [0.31, 0.39])
def test_the_first_frame_may_have_begun_before_the_span(
    recognizer: Recognizer, clip_folder: Path, start: float
) -> None:
    explanation = recognizer.explain_all(clip_folder / "a.mp4", start_seconds=start, end_seconds=start + 0.8)
    assert explanation.query(QueryPoint(explanation.seconds[0], 0.5, 0.5)).query_index == 0


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
    assert explanations.num_bytes == 2 * size, "one look a run"
    explanations.drop("eve")
    explanations.drop("nobody")
    explanations.drop(None)
    assert explanations.num_bytes == size


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


def test_the_moments_of_a_long_clip_are_its_timeline(recognition: Recognition, recognizer: Recognizer) -> None:
    """Alone and refined; a moment draws on what the library says; another look at the same clip has them at once."""
    moments, run = Moments(recognition), recognition.visits.current("ann")
    assert run is not None
    *_, last = moments.run("ann")
    timeline = recognizer.timeline(run.path, fast=True)
    expected = [[one.start_seconds, one.end_seconds, one.label] for one in timeline.segments()]
    assert [[start, end, label] for start, end, label, _ in last["refined"]] == [
        [pytest.approx(start, abs=1e-3), pytest.approx(end, abs=1e-3), label] for start, end, label in expected
    ]
    alone = timeline.in_context("none").segments()
    assert [label for *_, label, _ in last["alone"]] == [one.label for one in alone]
    assert (last["state"], last["done"]) == ("done", len(timeline))
    window = len(timeline) // 2
    middle = float(timeline.starts[window] + timeline.ends[window]) / 2
    drawn = moments.drawn({"run": run.identity, "seconds": middle})
    (best,) = [list(timeline.drawn_on(4))[window]]
    assert drawn["own"] == pytest.approx(best.own, abs=1e-4)
    assert [other["weight"] for other in drawn["others"]] == pytest.approx([w for _, w in best.others], abs=1e-4)
    assert moments.drawn({"run": "1.x", "seconds": 0.0}) == {"state": "gone"}
    recognition.again("ann", How("tiny", "fast"), 2)
    list(recognition.run("ann"))
    assert [event["state"] for event in moments.run("ann")] == ["done"]


def test_moments_that_are_left_out_are_said(recognition: Recognition, monkeypatch: pytest.MonkeyPatch) -> None:
    for most, said in ((0, 0), (300, None)):  # the clip has a segment or two
        monkeypatch.setattr(moments_of_a_clip, "MAX_SEGMENTS", most)
        *_, last = Moments(recognition).run("ann")
        assert last["cut"] == said
        assert max(len(last["alone"]), len(last["refined"])) <= most
    assert texts.MOMENTS["cut"].format(count=300).startswith("The first 300 segments")
