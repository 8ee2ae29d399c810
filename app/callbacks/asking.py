"""Questions about the answer that is shown, each answered from the features that the run has kept.

The page's player calls these directly. A question carries the identity of its run, and one about a run that is no
longer the current one gets no answer but `gone`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonlocal_video.attention.maps import AttentionMaps, QueryPoint
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.map_check import quick_check

from .. import sentences, texts
from ..components.heat import packed
from ..messages import words_of
from .recognise import Recognition

NUM_DOTS = 8
Question = Mapping[str, Any]
Reply = dict[str, Any]


@dataclass(frozen=True)
class Asking:
    """Functions of the server that the player calls."""

    recognition: Recognition
    """Runs and their explanations."""

    def functions(self) -> list[Callable[[Any], Reply]]:
        """Return the functions, named as the player calls them."""

        def standing(identity: str) -> Reply:
            return self.recognition.standing(identity)

        def stop(identity: str) -> Reply:
            self.recognition.visits.stop(identity)
            return {}

        def evidence(question: Question) -> Reply:
            return self._answered(question, self.evidence)

        def point(question: Question) -> Reply:
            return self._answered(question, self.point)

        def check(question: Question) -> Reply:
            return self._answered(question, self.check)

        return [standing, stop, evidence, point, check]

    def evidence(self, explanation: Explanation, question: Question) -> Reply:
        """Return the map of what speaks for one of the labels."""
        if explanation.evidence_layer is None:
            return {"words": texts.NO_EVIDENCE}
        label = str(question["label"])
        maps = explanation.class_evidence(label)
        return {"map": packed(maps, legend=texts.EVIDENCE_LEGEND.format(label=label), label=label)}

    def point(self, explanation: Explanation, question: Question) -> Reply:
        """Return what a point of the picture attends to: a map, the strongest places, and words."""
        if not explanation.block_inputs:
            return {"words": texts.NO_BLOCK}
        maps = explanation.query(self._point_of(question))
        total = float(maps.cells.clip(min=0).sum()) or 1.0
        targets = maps.strongest(NUM_DOTS)
        dots = [
            {"frame": one.index, "x": round(one.x, 4), "y": round(one.y, 4), "share": round(one.value / total, 4)}
            for one in targets
        ]
        return {
            "map": packed(maps, legend=texts.QUERY_LEGEND),
            "frame": maps.query_index,
            "dots": dots,
            "words": sentences.attends(maps, targets, total),
            "numbers": sentences.numbers(maps, targets, total),
        }

    def check(self, explanation: Explanation, question: Question) -> Reply:
        """Return, in words, what becomes of the score without the brightest places of a map."""
        maps, label = self._shown(explanation, question)
        recognizer = self.recognition.recognizers[explanation.prediction.model]
        checked = quick_check(recognizer, explanation, maps, label=label, on_pass=lambda clips: None)
        return {"words": checked.in_words[0].upper() + checked.in_words[1:]}

    def _shown(self, explanation: Explanation, question: Question) -> tuple[AttentionMaps, str | None]:
        kind = question["kind"]
        if kind == "evidence":
            label = str(question["label"])
            return explanation.class_evidence(label), label
        if kind == "attention":
            return explanation.attention_received(), None
        return explanation.query(self._point_of(question)), None

    def _point_of(self, question: Question) -> QueryPoint:
        return QueryPoint.parse((question["seconds"], question["x"], question["y"]))

    def _answered(self, question: Question, answer: Callable[[Explanation, Question], Reply]) -> Reply:
        identity = question.get("run") if isinstance(question, dict) else None
        run = self.recognition.visits.of(identity)
        if run is None:
            return {"state": "gone", "words": texts.EXPIRED}
        explanation = self.recognition.explanations.of(run.identity)
        if explanation is None:
            return {"words": texts.NOT_KEPT, "run": run.identity}
        try:
            return {**answer(explanation, question), "run": run.identity}
        except UsageError as error:
            words = texts.OUTSIDE if "outside the square" in str(error) else str(error)
            return {"words": words, "run": run.identity}
        except Exception as error:
            return {"words": words_of(error, Path(run.path).parent), "run": run.identity}
