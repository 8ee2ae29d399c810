"""Before and after: the same clip by two models, whose results the page plays in step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nonlocal_video.errors import VideoError
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.inference.recognizer import Recognizer

from .. import texts_more as texts
from ..messages import GONE, plain_errors, refusal
from ..results.store import Results
from ..sentences import figure

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

    def compare(self, clip: str | None, first: str, second: str) -> Iterator[Update]:
        """Yield the answer of the first model, then both."""
        words = texts.COMPARE
        if clip is None:
            raise refusal(words["none"])
        if first == second:
            raise refusal(words["same"])
        path = Path(clip)
        sides: list[dict[str, Any]] = []
        with plain_errors(path.parent):
            if not path.is_file():
                raise VideoError("not_found", GONE)
            for name in (first, second):
                yield Update(words["looking"].format(name=name), sides or None)
                explanation = self.recognizers[name].explain_all(path)
                id = self.results.keep(explanation.prediction)
                self.results.add_maps(id, explanation)
                sides = [*sides, _side(id, explanation.prediction)]
        said = [f"{side['top'][0][0]} {figure(side['top'][0][1])}" for side in sides]
        same = sides[0]["top"][0][0] == sides[1]["top"][0][0]
        verdict = words["agree"].format(first=sides[0]["top"][0][0]) if same else words["differ"]
        yield Update(verdict.format(first=said[0], second=said[1]), sides)


def _side(id: str, prediction: Prediction) -> dict[str, Any]:
    view = prediction.views[0]
    return {
        "result": id,
        "model": prediction.model,
        "top": [[scored.label, round(scored.score, 4)] for scored in prediction.top(TOP_K)],
        "start": view.start_seconds,
        "seconds": view.playback_seconds,
    }
