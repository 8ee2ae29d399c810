"""Answer a chosen clip: what happens when a visitor drops one, changes a setting, or stops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer, Stage

from .. import texts
from ..choices import FAST, is_averaged
from ..explanation_store import ExplanationStore
from ..messages import GONE, is_of_the_clip, title_of, words_of
from ..results.store import Results
from ..visits import How, Run, Visits
from .events import Event, answer_of, event_of, no_run, with_player
from .standing import standing

MAX_WAITING = 32
"""Maximum number of clips that wait for their turn, those of the HTTP API included; further ones are refused."""


@dataclass(frozen=True)
class Recognition:
    """Callbacks of the answer; each visitor's last explanation is kept for questions."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name."""
    results: Results = field(default_factory=Results)
    """Store of the results that visitors have links to."""
    explanations: ExplanationStore = field(default_factory=ExplanationStore)
    """Explanations by the identity of their run."""
    others: Callable[[], int] = lambda: 0
    """Returns how many wait elsewhere for the same network."""
    queued: Callable[[], Collection[str]] = lambda: ()
    """Returns the sessions whose runs are queued."""
    visits: Visits = field(init=False)
    """The current run of every visitor."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "visits", Visits(on_end=self.explanations.drop, queued=self.queued))

    def begin(self, session: str, path: Path, how: How, choice: int) -> Event | None:
        """Make a clip the visitor's current one and return the first event; None if a later choice has already come."""
        if not path.is_file():
            return no_run(choice, "not_found", GONE, refused=True)
        waiting = self.visits.waiting + self.others()
        if waiting >= MAX_WAITING:
            return no_run(choice, "busy", texts.BUSY.format(count=waiting))
        run = self.visits.begin(session, path, path.name, how, choice)
        return None if run is None else event_of(run, "waiting")

    def again(self, session: str, how: How, choice: int) -> Event | None:
        """Look at the visitor's clip again with other settings."""
        run = self.visits.current(session)
        if run is None:
            return no_run(choice, "expired", texts.EXPIRED, refused=True)
        known = run.timeline if (run.how.model, run.how.region) == (how.model, how.region) else None
        first = self.begin(session, run.path, how, choice)
        if known is not None and known.is_complete and (fresh := self.visits.current(session)) is not None:
            fresh.timeline = known  # the same windows of the same clip
        return first

    def span_around(self, session: str, how: How, seconds: float) -> tuple[float | None, float | None]:
        """Return the part of the visitor's clip that one view around a time takes in; the default one if unknown."""
        run = self.visits.current(session)
        explanation = self.explanations.of(run.identity) if run is not None else None
        if explanation is None:
            return None, None
        video = explanation.prediction.video
        spec = self.recognizers[how.model].card.view(fast=how.views == FAST)
        span = spec.num_frames / spec.rate_in(video.fps)
        start = min(max(seconds - span / 2, video.start_seconds), max(video.end_seconds - span, video.start_seconds))
        return round(start, 3), round(min(start + span, video.end_seconds), 3)

    def forget(self, request: gr.Request) -> None:
        """Forget a visitor who has left."""
        self.visits.close(request.session_hash or "")

    def run(self, session: str) -> Iterator[Event]:
        """Yield the scores of the visitor's current clip as soon as they are known, and then what they rest on.

        Yields nothing more when another run has become the current one, or this one was stopped.
        """
        run = self.visits.claim(session)
        if run is None:
            return
        result = ""
        try:
            for event in self._steps(run):
                result = event.get("result", "")
                if not self.visits.is_wanted(run):
                    return
                run.last_event = {name: value for name, value in event.items() if name != "player"}
                yield event
        except Exception as error:
            if self.visits.is_wanted(run):
                words = words_of(error, run.path.parent)
                run.last_event = event_of(
                    run, "error", title=title_of(error), words=words, refused=is_of_the_clip(error)
                )
                yield run.last_event
        finally:
            self.visits.end(run)
            self.results.give_up(result, texts.NOT_DRAWN)

    def _steps(self, run: Run) -> Iterator[Event]:
        if not run.path.is_file():
            yield event_of(run, "error", title=texts.TROUBLES["not_found"], words=GONE, refused=True)
            return
        recognizer, how = self.recognizers[run.how.model], run.how
        options = _options(how)

        def on_stage(stage: Stage) -> None:
            if not self.visits.is_wanted(run):
                raise Unwanted
            self.visits.enter(run, stage)

        try:
            if is_averaged(how.views):
                prediction = recognizer.classify(run.path, views=how.views, on_stage=on_stage, **options)
                yield (answer := answer_of(run, prediction, recognizer, self.results.keep(prediction)))
                explanation = recognizer.explain_all(run.path, **options)
            else:
                explanation = recognizer.explain_all(run.path, fast=how.views == FAST, on_stage=on_stage, **options)
                prediction = explanation.prediction
                yield (answer := answer_of(run, prediction, recognizer, self.results.keep(prediction)))
        except Unwanted:
            return
        self.visits.end(run)
        explanation = replace(explanation, prediction=prediction)
        self.explanations.keep(run.identity, explanation)
        if not self.visits.is_wanted(run):  # it may have ended while this was kept
            self.explanations.drop(run.identity)
            return
        self.results.add_maps_soon(answer["result"], explanation)
        yield from with_player(answer, explanation)

    def unheard(self, session: str) -> Iterator[Event]:
        """Yield once more what was last said of the visitor's current run: the browser still waits for it."""
        run = self.visits.current(session)
        if run is None or run.last_event is None or run.is_stopped:
            return
        explanation = self.explanations.of(run.identity)
        if run.last_event["state"] == "error" or explanation is None:
            yield run.last_event
        else:
            yield from with_player(run.last_event, explanation)

    def standing(self, identity: str) -> Event:
        """Return how far a run is."""
        return standing(self.visits, identity)


class Unwanted(Exception):
    """Nobody waits for this run any more."""


def _options(how: How) -> dict[str, Any]:
    return {"region": how.region, "start_seconds": how.start_seconds, "end_seconds": how.end_seconds}
