"""Callbacks of the tab for questions about a point, answered from the features of the last recognition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.attention.contact_sheet import NUM_ARROWS, ContactSheet
from nonlocal_video.attention.maps import AttentionMaps, Method, QueryPoint, Target
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.map_check import QUICK_DRAWS, QUICK_FRACTION

from ..choices import Choice
from ..explanation_store import ExplanationStore
from ..messages import plain_errors, refusal

TOP_K = 5
METHODS: list[Choice] = [
    ("What a point attends to", "query"),
    ("Attention received", "attention"),
    ("Evidence for an action", "evidence"),
]
HINT = {
    "query": "Click any place of any frame. The arrows go to the places that it attends to most.",
    "attention": "How much all other places attend to each place. Click a place to ask what it attends to itself.",
    "evidence": "Which places speak for the action. Click a place to ask what it attends to.",
}
UNCHECKED = f"""Does it show what the score rests on? The check blurs the brightest {QUICK_FRACTION:.0%} of the clip,
then as much of it elsewhere, and says what becomes of the score: {2 + QUICK_DRAWS} looks."""
RECOGNISE_FIRST = """**Recognise a clip first.** Then its frames appear here, and a click on any place of them shows
what that place attends to in all the others."""
NO_LOOK = "The features of this clip are not kept any more; press Recognise again."
TOO_LARGE = "The features of this clip take more memory than this server keeps for questions."
NO_BLOCK = (
    "This model has no non-local block, so there is no attention to ask about; look at the evidence for an action."
)
BETWEEN_FRAMES = "Click a place inside of a frame."


class Controls(NamedTuple):
    """Components that a visitor sets."""

    method: Any
    block: Any
    label: Any
    frame: Any
    x: Any
    y: Any


class Answer(NamedTuple):
    """Updates of the components, in the order in which the page lists its outputs."""

    sheet: Any
    numbers: Any
    method: Any
    block: Any
    label: Any
    frame: Any
    x: Any
    y: Any
    checked: Any
    """Result of the check, which is reset when the map changes."""
    visitor: Any
    """Session of the visitor; an update renews the time after which the explanation is dropped."""


@dataclass(frozen=True)
class AskCallbacks:
    """Callbacks of the tab for questions."""

    explanations: ExplanationStore
    """Explanations of all visitors."""

    def begin(self, request: gr.Request) -> tuple[Any, ...]:
        """Return the choices for a new explanation, and its first map."""
        explanation = self.explanations.of(request.session_hash)
        if explanation is None:
            nothing = Answer(*[gr.skip()] * len(Answer._fields))
            return gr.update(visible=False), gr.update(value=TOO_LARGE, visible=True), *nothing
        blocks = list(explanation.block_inputs)
        labels = [scored.label for scored in explanation.prediction.top(TOP_K)]
        methods = METHODS if blocks else [choice for choice in METHODS if choice[1] == "evidence"]
        maps = explanation.attention_received() if blocks else explanation.class_evidence()
        answer = self._answer(maps, request.session_hash)
        block = explanation.default_block or (blocks[-1] if blocks else None)
        frames = [(f"{maps.seconds[index]:.2f} s", index) for index in ContactSheet.from_frames(explanation).frames]
        return (
            gr.update(visible=True),
            gr.update(visible=False),
            *answer._replace(
                method=gr.update(choices=methods, value=maps.method),
                block=gr.update(choices=blocks, value=block, visible=bool(blocks)),
                label=gr.update(choices=labels, value=labels[0], visible=maps.method == "evidence"),
                frame=gr.update(choices=frames, value=frames[0][1]),
            ),
        )

    def click(self, block: str | None, label: str | None, event: gr.SelectData, request: gr.Request) -> Answer:
        """Return the map of the point that was clicked on the contact sheet."""
        explanation = self.explanation_of(request)
        place = ContactSheet.from_frames(explanation).point_at(*event.index)
        if place is None:
            raise gr.Error(BETWEEN_FRAMES, duration=3, print_exception=False)
        index, x, y = place
        return self.ask(block, label, index, round(100 * x, 1), round(100 * y, 1), request)

    def ask(
        self,
        block: str | None,
        label: str | None,
        frame: int,
        x_percent: float,
        y_percent: float,
        request: gr.Request,
    ) -> Answer:
        """Return the map of a point that was given by numbers."""
        if not self.explanation_of(request).block_inputs:
            raise refusal(NO_BLOCK)
        return self.show("query", block, label, frame, x_percent, y_percent, request)

    def show(
        self,
        method: Method,
        block: str | None,
        label: str | None,
        frame: int,
        x_percent: float,
        y_percent: float,
        request: gr.Request,
    ) -> Answer:
        """Return the map for the current controls."""
        with self.shown_maps(request, method, block, label, frame, x_percent, y_percent) as (_, maps):
            return self._answer(maps, request.session_hash)._replace(frame=frame, x=x_percent, y=y_percent)

    def explanation_of(self, request: gr.Request) -> Explanation:
        """Return the stored explanation of this visitor."""
        explanation = self.explanations.of(request.session_hash)
        if explanation is None:
            raise refusal(NO_LOOK)
        return explanation

    @contextmanager
    def shown_maps(
        self,
        request: gr.Request,
        method: Method,
        block: str | None,
        label: str | None,
        frame: int,
        x_percent: float,
        y_percent: float,
    ) -> Iterator[tuple[Explanation, AttentionMaps]]:
        """Yield this visitor's explanation, and the maps for the controls; errors in the block are shown plainly."""
        explanation = self.explanation_of(request)
        with plain_errors(Path(explanation.prediction.path).parent):
            if method == "query":
                point = QueryPoint(float(explanation.seconds[frame]), x_percent / 100, y_percent / 100)
                maps = explanation.query(point, layer=block)
            elif method == "attention":
                maps = explanation.attention_received(layer=block)
            else:
                maps = explanation.class_evidence(label)
            yield explanation, maps

    def _answer(self, maps: AttentionMaps, visitor: str | None) -> Answer:
        targets = maps.strongest(NUM_ARROWS)
        sheet = ContactSheet.from_frames(maps)
        return Answer(
            sheet=gr.update(value=sheet.draw(maps, targets), alt_text=_in_words(maps, targets)),
            numbers=_numbers(maps, targets),
            method=maps.method,
            block=gr.update(visible=maps.method != "evidence"),
            label=gr.update(visible=maps.method == "evidence"),
            frame=gr.skip(),
            x=gr.skip(),
            y=gr.skip(),
            checked=UNCHECKED,
            visitor=visitor,
        )


def _place(seconds: float, x: float, y: float) -> str:
    return f"{seconds:.2f} s, {x:.0%} from the left, {y:.0%} from the top"


def _in_words(maps: AttentionMaps, targets: list[Target]) -> str:
    """Describe the contact sheet, as its alternative text."""
    places = "; ".join(_place(target.seconds, target.x, target.y) for target in targets)
    frames = f"{len(ContactSheet.from_frames(maps).frames)} frames of the clip with {maps.quantity}."
    asked = f" Asked point: {_place(maps.query.seconds, maps.query.x, maps.query.y)}." if maps.query else ""
    return f"{frames}{asked} Strongest places: {places}."


def _numbers(maps: AttentionMaps, targets: list[Target]) -> str:
    """Return the statistics of an attention map and its strongest points as Markdown."""
    lines = [HINT[maps.method], ""]
    if maps.query is not None:
        lines[0] = f"**The point at {_place(maps.query.seconds, maps.query.x, maps.query.y)}**"
    if maps.entropy_nats is not None and maps.temporal_spread_seconds is not None:
        lines += [
            f"- Entropy **{maps.entropy_nats:.2f} nats** of at most {maps.maximum_entropy_nats:.2f} "
            f"(ln {maps.cells.size}: the same for all places)",
            f"- Spread in time **{maps.temporal_spread_seconds:.2f} s**; the same for all places would be "
            f"{maps.even_temporal_spread_seconds:.2f} s",
            "",
        ]
    if maps.method == "evidence":
        lines.append(f"{maps.caption.capitalize()}: {maps.quantity}.")
        return "\n".join(lines)
    attends = "It attends most to" if maps.query else "Most attended to"
    is_share = maps.method == "attention" or maps.entropy_nats is not None
    lines.append(attends if is_share else f"{attends} ({maps.quantity})")
    lines.append("")
    lines += [
        f"1. {_place(target.seconds, target.x, target.y)}: "
        + (f"{target.value / maps.cells.size:.1%}" if is_share else f"{target.value:+.1f}")
        for target in targets
    ]
    return "\n".join(lines)
