"""The layout of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.samples import Sample

from .callbacks import INVITATION, TOP_K, Callbacks, choose, notes_of
from .choices import overlay_choices, standard_view, view_choices

KEEP_SECONDS = 3600
"""How long uploads and overlays stay on the server."""
CLEAN_EVERY_SECONDS = 60
MAX_WAITING = 32
"""Visitors in the queue; the next one is told to come back."""

STYLE = Path(__file__).with_name("style.css")
TITLE = "What is happening in this video?"
INTRODUCTION = "A network with non-local blocks names the action and shows, frame by frame, where it looked."
LIMITS = "Up to {megabytes} MB. A clip stays on this server, where it is deleted after {minutes} minutes."


def theme() -> gr.themes.Base:
    """Fonts of the visitor's own system: any other would be fetched from a foreign host."""
    return gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(body_text_color_subdued="*neutral_500")  # Gradio's own is too pale to read on white


class Inputs(NamedTuple):
    """What a visitor sets."""

    clip: gr.File
    view: gr.Radio
    overlay: gr.Radio
    model: gr.Dropdown
    recognise: gr.Button


class Outputs(NamedTuple):
    """What an `Outcome` updates, in its order."""

    status: gr.Markdown
    results: gr.Column
    scores: gr.Label
    overlay: gr.Video
    strip: gr.Gallery


def build_page(recognizers: Sequence[Recognizer], *, max_upload_mb: int, samples: Sequence[Sample] = ()) -> gr.Blocks:
    """The page for these models; the first is chosen to begin with.

    Args:
        recognizers: At least one; their cards' names are what a visitor chooses from.
        max_upload_mb: The limit stated on the page (the server enforces it).
        samples: Clips that can be picked instead of an upload; the row is left away when there are none.
    """
    callbacks = Callbacks({recognizer.card.name: recognizer for recognizer in recognizers})
    with gr.Blocks(
        title="nonlocal-video", analytics_enabled=False, delete_cache=(CLEAN_EVERY_SECONDS, KEEP_SECONDS)
    ) as page:
        gr.Markdown(f"# {TITLE}\n{INTRODUCTION}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                inputs = _inputs(recognizers, samples, max_upload_mb)
            with gr.Column(scale=3, min_width=320):
                outputs, notes = _outputs(recognizers[0])
        answer = inputs.recognise.click(
            callbacks.recognise,
            [inputs.clip, inputs.model, inputs.view, inputs.overlay],
            outputs,
            show_progress_on=outputs.status,
            api_visibility="private",
        )
        inputs.clip.change(
            choose,
            inputs.clip,
            [inputs.recognise, *outputs],
            cancels=answer,  # what is still on its way is the answer to the clip before
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        inputs.model.change(
            callbacks.offer, inputs.model, [inputs.view, inputs.overlay, notes], queue=False, api_visibility="private"
        )
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def _inputs(recognizers: Sequence[Recognizer], samples: Sequence[Sample], max_upload_mb: int) -> Inputs:
    first = recognizers[0]
    views, overlays = view_choices(first.card), overlay_choices(first)
    # A File takes a clip of any name; a Video would show a broken player for what browsers cannot play, like AVI.
    clip = gr.File(label="A video of any kind", height=160, elem_id="clip")
    gr.Markdown(LIMITS.format(megabytes=max_upload_mb, minutes=KEEP_SECONDS // 60), elem_id="limits")
    if samples:
        gr.Examples(
            [[str(sample.path)] for sample in samples],
            clip,
            label="Or a sample",
            example_labels=[sample.title for sample in samples],
            elem_id="samples",
            api_visibility="private",
        )
    view = gr.Radio(
        views, value=views[0][1], label="How closely to look", info=standard_view(first.card), elem_id="views"
    )
    overlay = gr.Radio(
        overlays,
        value=overlays[0][1],
        label="What the overlay shows",
        info="The places that all others look at, or those that speak for the first action.",
        elem_id="overlay-kind",
    )
    model = gr.Dropdown(
        [recognizer.card.name for recognizer in recognizers],
        value=first.card.name,
        label="Model",
        interactive=len(recognizers) > 1,
        elem_id="model",
    )
    recognise = gr.Button("Recognise", variant="primary", interactive=False, elem_id="recognise")
    return Inputs(clip, view, overlay, model, recognise)


def _outputs(first: Recognizer) -> tuple[Outputs, gr.Markdown]:
    """The components of an answer, and the notes on the model."""
    status = gr.Markdown(INVITATION, container=True, min_height=76, elem_id="status")
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
        notes = gr.Markdown(notes_of(first), elem_id="notes")
    return Outputs(status, results, scores, overlay, strip), notes
