"""Before and after: the same clip by two models, whose results the page plays in step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.inference.recognizer import Recognizer

from .. import texts_more as texts
from ..components.headline import DONE, ERROR, WORKING, failed, said
from ..messages import GONE
from ..results.store import Results
from ..sentences import figure
from ..visit_folders import uploaded

TOP_K = 5


class Update(NamedTuple):
    """Updates of the components, in the order in which the page lists its outputs."""

    status: Any
    players: Any


@dataclass(frozen=True)
class Comparing:
    """Callbacks of the comparison."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name."""
    results: Results
    """Store of the results."""
    clips: dict[str, Path] = field(default_factory=dict)
    """The clip that each visitor chose last."""
    running: dict[str, object] = field(default_factory=dict)
    """Identity of each visitor's run in progress; a run that finds another one there says nothing more."""

    def choose(self, event: gr.EventData, request: gr.Request) -> Update:
        """Take another clip in place of the last one; `compare` follows."""
        visitor = request.session_hash or ""
        self.leave(request)
        try:
            (self.clips[visitor],) = map(uploaded, event._data["paths"])
        except UsageError as error:
            return Update(failed(error, Path()), None)
        return Update(said(WORKING, texts.COMPARE["reading"], can_stop=False), None)

    def compare(self, first: str, second: str, request: gr.Request) -> Iterator[Update]:
        """Yield the answer of the first model, then both; nothing before a clip was chosen."""
        visitor, words = request.session_hash or "", texts.COMPARE
        if (path := self.clips.get(visitor)) is None:
            return
        run = self.running[visitor] = object()
        if first == second:
            yield Update(said(ERROR, words["same"]), None)
            return
        sides: list[dict[str, Any]] = []
        try:
            if not path.is_file():
                raise VideoError("not_found", GONE)
            for name in (first, second):
                yield Update(
                    said(WORKING, words["looking"].format(name=name), path.name, can_stop=False), sides or None
                )
                explanation = self.recognizers[name].explain_all(path)
                if self.running.get(visitor) is not run:
                    return
                id = self.results.keep(explanation.prediction)
                self.results.add_maps(id, explanation)
                sides = [*sides, _side(id, explanation.prediction)]
        except Exception as error:  # the page says why
            if self.running.get(visitor) is run:
                yield Update(failed(error, path.parent), None)
            return
        yield Update(said(DONE, _verdict(sides), path.name), sides)

    def leave(self, request: gr.Request) -> None:
        """Forget a visitor's clip; a run in progress says nothing more."""
        for held in (self.clips, self.running):
            held.pop(request.session_hash or "", None)


def _verdict(sides: list[dict[str, Any]]) -> str:
    words = [f"{side['top'][0][0]} {figure(side['top'][0][1])}" for side in sides]
    same = sides[0]["top"][0][0] == sides[1]["top"][0][0]
    said = texts.COMPARE["agree"].format(first=sides[0]["top"][0][0]) if same else texts.COMPARE["differ"]
    return said.format(first=words[0], second=words[1])


def _side(id: str, prediction: Prediction) -> dict[str, Any]:
    view = prediction.views[0]
    return {
        "result": id,
        "model": prediction.model,
        "top": [[scored.label, round(scored.score, 4)] for scored in prediction.top(TOP_K)],
        "start": view.start_seconds,
        "seconds": view.playback_seconds,
    }
