"""A button that starts something, and the one that cancels it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.events import Dependency

UNQUEUED: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How a listener is set that only changes what the page shows."""

MIN_WIDTH = 120
"""In pixels: both fit side by side on a phone."""

_SHOW = """() => {{
    const answer = document.getElementById("{}");
    if (answer.getBoundingClientRect().top > innerHeight) answer.scrollIntoView();
}}"""


def start_and_cancel(
    words: tuple[str, str], *, elem_ids: tuple[str, str], answers_in: str, ready: bool = False
) -> tuple[gr.Button, gr.Button]:
    """The two buttons side by side.

    Args:
        words: What stands on them.
        elem_ids: Theirs in the document.
        answers_in: The element where the answer will be; it is scrolled to if it lies below what the visitor sees.
        ready: Whether "start" can be pressed from the beginning.
    """
    with gr.Row():
        start = gr.Button(words[0], variant="primary", interactive=ready, min_width=MIN_WIDTH, elem_id=elem_ids[0])
        cancel = gr.Button(words[1], interactive=False, min_width=MIN_WIDTH, elem_id=elem_ids[1])
    start.click(None, js=_SHOW.format(answers_in), **UNQUEUED)
    return start, cancel


def offer_cancel(start: gr.Button, cancel: gr.Button) -> None:
    """Let only "cancel" be pressed from now on; to be set before what "start" runs: listeners take turns."""
    start.click(lambda: [gr.update(interactive=False), gr.update(interactive=True)], None, [start, cancel], **UNQUEUED)


def offer_start(start: gr.Button, cancel: gr.Button, clip: gr.File, run: Dependency) -> None:
    """Let only "start" be pressed when the run is over or the clip is another, and not without a clip.

    A cancelled run is over when Gradio's page says so: until then it would not listen to another press.
    """
    run.then(_idle, clip, [start, cancel], **UNQUEUED)
    run.failure(_idle, clip, [start, cancel], **UNQUEUED)  # after an error Gradio 6 sends no "then"
    clip.change(_idle, clip, [start, cancel], **UNQUEUED)


def _idle(clip: str | None) -> list[Any]:
    return [gr.update(interactive=clip is not None), gr.update(interactive=False)]
