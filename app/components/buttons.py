"""Buttons that start and cancel a run."""

from __future__ import annotations

from collections.abc import Callable
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


def offer_cancel(start: gr.Button, cancel: gr.Button, on_press: Callable[[gr.Request], None]) -> None:
    """Enable only "cancel" after a press of "start"; call it before adding the listener that runs, as order counts.

    Args:
        start: Button that starts.
        cancel: Button that cancels.
        on_press: Called with each press, before its run waits for its turn.
    """

    def pressed(request: gr.Request) -> list[Any]:
        on_press(request)
        return [gr.update(interactive=False), gr.update(interactive=True)]

    start.click(pressed, None, [start, cancel], **UNQUEUED)


def offer_start(
    start: gr.Button, cancel: gr.Button, clip: gr.File, run: Dependency, is_running: Callable[[gr.Request], bool]
) -> None:
    """Enable what can be pressed whenever a run has ended or was cancelled, or the clip has changed.

    Args:
        start: Button that starts.
        cancel: Button that cancels.
        clip: The clip, without which nothing starts.
        run: Run that "start" begins.
        is_running: Returns whether this visitor has a run: the end of an earlier one says nothing about a later one.
    """

    def offered(chosen: str | None, request: gr.Request) -> list[Any]:
        running = is_running(request)
        return [gr.update(interactive=chosen is not None and not running), gr.update(interactive=running)]

    # After an error Gradio 6 sends no "then".
    for listener in (run.then, run.failure, clip.change, cancel.click):
        listener(offered, clip, [start, cancel], trigger_mode="multiple", **UNQUEUED)
