"""The moments of a clip that is longer than one view: each window alone, and refined by the windows like it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from nonlocal_video.inference.context import drawn_on
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline import Segment, Timeline

from ..choices import is_long
from ..messages import words_of
from ..visits import Run
from .events import Event
from .recognise import Recognition
from .timeline_updates import timeline_updates

UPDATE_SECONDS = 0.5
MIN_TIMED_WINDOWS = 3
MAX_SEGMENTS = 300
NUM_OTHERS = 4


@dataclass(frozen=True)
class Moments:
    """Callbacks of the part of the page for long clips."""

    recognition: Recognition
    """Runs and their explanations."""

    def run(self, session: str) -> Iterator[Event]:
        """Yield the growing moments of the visitor's current clip, if it was answered and is long."""
        visits = self.recognition.visits
        run = visits.current(session)
        if run is None or not visits.is_wanted(run):
            return
        explanation = self.recognition.explanations.of(run.identity)
        recognizer = self.recognition.recognizers[run.how.model]
        if explanation is None or not is_long(explanation.prediction.video.duration_seconds, recognizer.card):
            return
        if run.timeline is not None:
            if run.timeline.is_complete:
                yield shown(run, run.timeline, "done")
            return
        try:
            yield from self._steps(run, recognizer)
        except Exception as error:
            if visits.is_wanted(run):
                yield {"run": run.identity, "state": "error", "words": words_of(error, run.path.parent)}

    def _steps(self, run: Run, recognizer: Recognizer) -> Iterator[Event]:
        fast = recognizer.card.fast_input is not None
        steps = timeline_updates(
            recognizer, run.path, update_seconds=UPDATE_SECONDS, fast=fast, region=run.how.region or None
        )
        yield {"run": run.identity, "state": "working", "done": 0}
        with closing(steps):
            for timeline in steps:
                if not self.recognition.visits.is_wanted(run):
                    break
                run.timeline = timeline
                state = "done" if timeline.is_complete else "broke" if timeline.error else "working"
                yield shown(run, timeline, state)
        if run.is_stopped and self.recognition.visits.current(run.session) is run and run.timeline is not None:
            run.timeline = run.timeline.in_context(run.timeline.context)
            yield shown(run, run.timeline, "stopped")

    def functions(self) -> list[Callable[[Any], Event]]:
        """Return the functions of the server that this part calls."""

        def drawn(question: Any) -> Event:
            return self.drawn(question)

        def stop(identity: str) -> Event:
            self.recognition.visits.stop(identity)
            return {}

        return [drawn, stop]

    def drawn(self, question: Any) -> Event:
        """Return the other moments that the answer at a time drew on, with their weights."""
        about = question if isinstance(question, dict) else {}
        run, seconds = self.recognition.visits.of(about.get("run")), about.get("seconds")
        if run is None or run.timeline is None or not isinstance(seconds, int | float):
            return {"state": "gone"}
        timeline = run.timeline
        middle = (timeline.starts + timeline.ends) / 2
        window = int(abs(middle - seconds).argmin())
        best = timeline.top(window, 1)[0]
        answer: Event = {
            "run": run.identity,
            "window": [float(timeline.starts[window]), float(timeline.ends[window])],
            "label": best.label,
            "others": [],
        }
        if timeline.features is None or len(timeline) < 2 or timeline.context == "none":
            return answer
        (found,) = drawn_on(timeline.features, k=NUM_OTHERS, positions=[window])
        answer["own"] = round(found.own, 4)
        answer["others"] = [
            {"start": float(timeline.starts[other]), "end": float(timeline.ends[other]), "weight": round(weight, 4)}
            for other, weight in found.others
        ]
        return answer


def shown(run: Run, timeline: Timeline, state: str) -> Event:
    """Return what the page shows of a timeline."""
    done, left = len(timeline), None
    if state == "working" and done >= MIN_TIMED_WINDOWS:
        left = round(timeline.timings.total / done * (timeline.num_planned - done))
    refined, alone = timeline.segments(), timeline.in_context("none").segments()
    return {
        "run": run.identity,
        "state": state,
        "done": done,
        "planned": timeline.num_planned,
        "left": left,
        "words": timeline.error.message if timeline.error else None,
        "end": max(float(timeline.ends[-1]), timeline.info.end_seconds),
        "reached": float(timeline.ends[-1]),
        "refined": _rows(refined),
        "alone": _rows(alone),
        "cut": MAX_SEGMENTS if max(len(refined), len(alone)) > MAX_SEGMENTS else None,
    }


def _rows(segments: list[Segment]) -> list[list[Any]]:
    return [
        [round(segment.start_seconds, 3), round(segment.end_seconds, 3), segment.label, round(segment.score, 3)]
        for segment in segments[:MAX_SEGMENTS]
    ]
