"""Layout of the tab for recognition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import gradio as gr
from gradio.events import Dependency

from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.samples import Sample

from ..api import NETWORK
from ..callbacks.ask_callbacks import RECOGNISE_FIRST, AskCallbacks
from ..callbacks.recognise import INVITATION, TOP_K, Callbacks, Outcome, notes_of
from ..choices import overlay_choices, standard_view, view_choices
from ..components.buttons import UNQUEUED, offer_cancel, offer_start, start_and_cancel
from ..components.player import player_of
from ..components.sample_row import sample_row
from .ask_tab import AskTab

RECORDED_WIDTH = 640
"""Requested width of camera recordings, in pixels; the network sees less."""
_HAND_OVER = "(recording) => [recording, null]"


class Inputs(NamedTuple):
    """Components that a visitor sets."""

    clip: gr.File
    model: gr.Dropdown
    view: gr.Radio
    overlay: gr.Radio
    region: gr.Textbox


class RecogniseTab(NamedTuple):
    """Components and events that other parts of the page use."""

    callbacks: Callbacks
    clip: gr.File
    answer: Dependency
    cancel: Dependency
    outcome: Outcome
    ask: gr.Button


def recognise_tab(recognizers: Mapping[str, Recognizer], samples: Sequence[Sample], limits: str) -> RecogniseTab:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name; the first is the default.
        samples: Sample clips; without any, their row is left out.
        limits: Limits of uploads, in words.
    """
    callbacks = Callbacks(recognizers)
    first = next(iter(recognizers.values()))
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            clip = _source(samples)
            recognise, cancel = start_and_cancel(
                ("Recognise", "Cancel"), elem_ids=("recognise", "recognise-cancel"), answers_in="status"
            )
            gr.Markdown(limits, elem_id="limits", elem_classes="small-print")
            inputs = Inputs(clip, *_choices(recognizers), _region())
        with gr.Column(scale=3, min_width=320):
            outcome, notes, ask = _outputs(first)
    offer_cancel(recognise, cancel)
    answer = recognise.click(
        callbacks.recognise,
        inputs,
        outcome,
        show_progress_on=outcome.status,
        concurrency_id=NETWORK,
        api_visibility="private",
    )
    cancel.click(None, cancels=answer)
    end = cancel.click(callbacks.cancel, None, outcome, **UNQUEUED)
    inputs.clip.change(None, cancels=answer)  # a pending answer is for the previous clip
    inputs.clip.change(callbacks.choose, None, outcome, **UNQUEUED)
    offer_start(recognise, cancel, inputs.clip, answer)
    inputs.model.change(callbacks.offer, inputs.model, [inputs.view, inputs.overlay, notes], **UNQUEUED)
    return RecogniseTab(callbacks, inputs.clip, answer, end, outcome, ask)


def offer_questions(recognise: RecogniseTab, ask_tab: AskTab, tabs: gr.Tabs) -> None:
    """Update the tab for questions after each recognition."""
    callbacks = AskCallbacks(recognise.callbacks.explanations)
    questions = [ask_tab.questions, ask_tab.invitation, *ask_tab.answer]
    recognise.answer.success(
        callbacks.begin, None, questions, show_progress="hidden", concurrency_id="ask", api_visibility="private"
    )
    for gone in (recognise.clip.change, recognise.cancel.then):
        gone(
            lambda: (gr.update(visible=False), gr.update(value=RECOGNISE_FIRST, visible=True)),
            None,
            [ask_tab.questions, ask_tab.invitation],
            **UNQUEUED,
        )
    recognise.ask.click(lambda: gr.Tabs(selected="ask"), None, tabs, queue=False, api_visibility="private")


def _source(samples: Sequence[Sample]) -> gr.File:
    """Lay out the sources of a clip: upload, sample, recording."""
    # A File accepts any name; a Video would show a broken player for formats that browsers cannot play, such as AVI.
    clip = gr.File(label="A video of any kind", height=160, elem_id="clip")
    player_of(clip, elem_id="preview")
    sample_row(samples, clip, elem_id="samples")
    with gr.Accordion("Or record with your camera", open=False, elem_id="recording"):
        _camera(clip)
    return clip


def _choices(recognizers: Mapping[str, Recognizer]) -> tuple[gr.Dropdown, gr.Radio, gr.Radio]:
    """Lay out the choices of model, view and overlay."""
    first = next(iter(recognizers.values()))
    views, overlays = view_choices(first.card), overlay_choices(first)
    view = gr.Radio(
        views, value=views[0][1], label="How closely to look", info=standard_view(first.card), elem_id="views"
    )
    overlay = gr.Radio(
        overlays,
        value=overlays[0][1],
        label="What the overlay shows",
        info="The places that speak for the first action, or those that all others look at.",
        elem_id="overlay-kind",
    )
    model = gr.Dropdown(
        list(recognizers),
        value=first.card.name,
        label="Model",
        interactive=len(recognizers) > 1,
        elem_id="model",
    )
    return model, view, overlay


def _region() -> gr.Textbox:
    """Lay out the region of the frame, as for `--region`."""
    return gr.Textbox(
        "",
        label="Only this part of the picture",
        info="Left, top, right and bottom edge in fractions of the width and height: 0.5,0,1,1 is the right half.",
        placeholder="0,0,1,1",
        max_lines=1,
        elem_id="region",
    )


def _camera(clip: gr.File) -> None:
    """Lay out a camera whose recording is uploaded as the clip."""
    camera = gr.Video(
        sources=["webcam"],
        # Without mirror and with "audio", Gradio leaves the recording unchanged; otherwise it would run ffmpeg on it.
        # The microphone is not requested all the same.
        include_audio=True,
        webcam_options=gr.WebcamOptions(
            mirror=False, constraints={"audio": False, "video": {"width": {"ideal": RECORDED_WIDTH}}}
        ),
        label="Camera",
        elem_id="camera",
    )
    camera.stop_recording(None, camera, [clip, camera], js=_HAND_OVER, **UNQUEUED)


def _outputs(first: Recognizer) -> tuple[Outcome, gr.Markdown, gr.Button]:
    """Lay out the answer, the notes on the model, and the button to the questions."""
    status = gr.Markdown(INVITATION, container=True, min_height=76, elem_id="status", elem_classes="status")
    with gr.Column(visible=False, elem_id="results") as results:
        scores = gr.Label(label="Action", num_top_classes=TOP_K, elem_id="scores")
        overlay = gr.Video(
            label="Where it looked",
            interactive=False,
            autoplay=True,
            loop=True,
            buttons=["download"],
            elem_id="overlay",
        )
        strip = gr.Gallery(
            label="Sampled frames",
            interactive=False,
            format="jpeg",
            object_fit="contain",
            buttons=["fullscreen"],
            elem_id="strip",
        )
        ask = gr.Button("Ask about any point", elem_id="to-ask")
        notes = gr.Markdown(notes_of(first), elem_id="notes", elem_classes="small-print")
    return Outcome(status, results, scores, overlay, strip), notes, ask
