"""Buttons that start and cancel a run."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.events import Dependency

UNQUEUED: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of listeners that only update the page."""

MIN_WIDTH = 120
"""Minimum width in pixels; both buttons fit side by side on a phone."""

_SHOW = """() => {{
    const answer = document.getElementById("{}");
    if (answer.getBoundingClientRect().top > innerHeight) answer.scrollIntoView();
}}"""


def start_and_cancel(
    words: tuple[str, str], *, elem_ids: tuple[str, str], answers_in: str, ready: bool = False
) -> tuple[gr.Button, gr.Button]:
    """Lay out the two buttons side by side.

    Args:
        words: Labels of the buttons.
        elem_ids: IDs of their elements.
        answers_in: ID of the element of the answer, which is scrolled into view.
        ready: Whether "start" is enabled at first.
    """
    with gr.Row():
        start = gr.Button(words[0], variant="primary", interactive=ready, min_width=MIN_WIDTH, elem_id=elem_ids[0])
        cancel = gr.Button(words[1], interactive=False, min_width=MIN_WIDTH, elem_id=elem_ids[1])
    start.click(None, js=_SHOW.format(answers_in), **UNQUEUED)
    return start, cancel


def offer_cancel(start: gr.Button, cancel: gr.Button) -> None:
    """Enable only "cancel" after a press of "start"; call it before adding the listener that runs, as order counts."""
    start.click(lambda: [gr.update(interactive=False), gr.update(interactive=True)], None, [start, cancel], **UNQUEUED)


def offer_start(start: gr.Button, cancel: gr.Button, clip: gr.File, run: Dependency) -> None:
    """Enable only "start" when the run has ended or the clip has changed, if there is a clip.

    A cancelled run ends when Gradio's page reports it: until then it would ignore another press.
    """
    run.then(_idle, clip, [start, cancel], **UNQUEUED)
    run.failure(_idle, clip, [start, cancel], **UNQUEUED)  # after an error Gradio 6 sends no "then"
    clip.change(_idle, clip, [start, cancel], **UNQUEUED)


def _idle(clip: str | None) -> list[Any]:
    return [gr.update(interactive=clip is not None), gr.update(interactive=False)]
