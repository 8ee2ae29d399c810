"""Layout of the tab for questions about a point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer

from ..api import NETWORK
from ..callbacks.ask_callbacks import HINT, METHODS, RECOGNISE_FIRST, UNCHECKED, Answer, AskCallbacks, Controls
from ..callbacks.map_check import MapCheck
from ..explanation_store import MAX_BYTES, UNUSED_SECONDS, ExplanationStore

KEPT = f"""The features of your last clip are kept for {UNUSED_SECONDS // 60} minutes after your last question, or until
you close the page. When those of all visitors take more than {MAX_BYTES // 1024**2} MB, the longest unused go first."""


class AskTab(NamedTuple):
    """Components that other parts of the page update."""

    invitation: gr.Markdown
    questions: gr.Column
    answer: Answer


def ask_tab(recognizers: Mapping[str, Recognizer], explanations: ExplanationStore) -> AskTab:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name.
        explanations: Explanations of all visitors.
    """
    callbacks = AskCallbacks(explanations)
    invitation = gr.Markdown(RECOGNISE_FIRST, container=True, elem_id="ask-invitation")
    visitor = gr.State(None, time_to_live=UNUSED_SECONDS, delete_callback=explanations.drop)
    with gr.Column(visible=False, elem_id="ask") as questions, gr.Row():
        with gr.Column(scale=4, min_width=320):
            sheet = gr.Image(
                label="Click a place",
                interactive=False,
                format="jpeg",
                buttons=["download", "fullscreen"],
                alt_text="Frames of the clip",
                elem_id="sheet",
            )
        with gr.Column(scale=2, min_width=320):
            controls, ask = _controls()
            numbers = gr.Markdown(HINT["attention"], container=True, elem_id="numbers")
            check = gr.Button("Check this picture", elem_id="check")
            checked = gr.Markdown(UNCHECKED, container=True, min_height=100, elem_id="checked", elem_classes="status")
            gr.Markdown(KEPT, elem_id="kept", elem_classes="small-print")
    answer = Answer(sheet, numbers, *controls, checked, visitor)
    # Questions have their own queue, so they do not wait for clips of other visitors.
    options: dict[str, Any] = {
        "outputs": list(answer),
        "concurrency_limit": 2,
        "concurrency_id": "ask",
        "show_progress_on": sheet,
        "show_progress": "minimal",
        "api_visibility": "private",
    }
    checking = check.click(
        MapCheck(recognizers, callbacks).check,
        list(controls),
        checked,
        concurrency_id=NETWORK,
        api_visibility="private",
    )
    asked = [sheet.select, ask.click, controls.method.input, controls.block.input, controls.label.input]
    gr.on(asked, None, cancels=checking)  # its result would not apply to the next map
    sheet.select(callbacks.click, [controls.block, controls.label], trigger_mode="always_last", **options)
    ask.click(callbacks.ask, [controls.block, controls.label, controls.frame, controls.x, controls.y], **options)
    gr.on(
        [controls.method.input, controls.block.input, controls.label.input],
        callbacks.show,
        list(controls),
        trigger_mode="always_last",
        **options,
    )
    return AskTab(invitation, questions, answer)


def _controls() -> tuple[Controls, gr.Button]:
    method = gr.Radio(METHODS, value="attention", label="Show", elem_id="ask-method")
    block = gr.Dropdown([], label="Non-local block", elem_id="ask-block")
    label = gr.Dropdown([], label="Action", visible=False, elem_id="ask-label")
    with gr.Accordion("Ask by numbers instead of a click", open=False, elem_id="ask-by-numbers"):
        frame = gr.Dropdown([], label="Frame at", elem_id="ask-frame")
        x = gr.Slider(0, 100, 50, label="From the left, %", elem_id="ask-x")
        y = gr.Slider(0, 100, 50, label="From the top, %", elem_id="ask-y")
        ask = gr.Button("Ask", elem_id="ask-button")
    return Controls(method, block, label, frame, x, y), ask
