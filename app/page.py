"""The layout of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.samples import Sample

from .api import NETWORK, add_endpoints
from .ask_tab import AskTab, ask_tab
from .asking import Asking
from .callbacks import INVITATION, TOP_K, Callbacks, choose, notes_of
from .choices import overlay_choices, standard_view, view_choices
from .folder_tab import folder_tab

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
    ).set(
        # Gradio's own are too pale to read: text needs 4.5 times the background's luminance (WCAG 2.2, 1.4.3).
        body_text_color_subdued="*neutral_500",
        color_accent="*primary_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
    )


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


def build_page(
    recognizers: Sequence[Recognizer],
    *,
    max_upload_mb: int,
    samples: Sequence[Sample] = (),
    folder_root: Path | None = None,
) -> gr.Blocks:
    """The page for these models; the first is chosen to begin with.

    Args:
        recognizers: At least one; their cards' names are what a visitor chooses from.
        max_upload_mb: The limit stated on the page (the server enforces it).
        samples: Clips that can be picked instead of an upload; the row is left away when there are none.
        folder_root: Folders at and below it on the server may be classified; None offers none.
    """
    limits = LIMITS.format(megabytes=max_upload_mb, minutes=KEEP_SECONDS // 60)
    by_name = {recognizer.card.name: recognizer for recognizer in recognizers}
    callbacks = Callbacks(by_name)
    with gr.Blocks(
        title="nonlocal-video", analytics_enabled=False, delete_cache=(CLEAN_EVERY_SECONDS, KEEP_SECONDS)
    ) as page:
        gr.Markdown(f"# {TITLE}\n{INTRODUCTION}")
        with gr.Tabs(selected="recognise", elem_id="tabs") as tabs:
            with gr.Tab("Recognise", id="recognise"), gr.Row():
                with gr.Column(scale=2, min_width=320):
                    inputs = _inputs(recognizers, samples, limits)
                with gr.Column(scale=3, min_width=320):
                    outputs, notes, ask = _outputs(recognizers[0])
            with gr.Tab("Ask a point", id="ask"):
                asked = ask_tab(callbacks.looks)
            with gr.Tab("Folder", id="folder"):
                runs = folder_tab(
                    by_name, folder_root, LIMITS.format(megabytes=max_upload_mb, minutes=KEEP_SECONDS // 60)
                )
        _connect(callbacks, inputs, outputs, asked)
        inputs.model.change(
            callbacks.offer, inputs.model, [inputs.view, inputs.overlay, notes], queue=False, api_visibility="private"
        )
        ask.click(lambda: gr.Tabs(selected="ask"), None, tabs, queue=False, api_visibility="private")
        add_endpoints(by_name)
        page.unload(callbacks.forget)
        page.unload(runs.leave)
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def _connect(callbacks: Callbacks, inputs: Inputs, outputs: Outputs, asked: AskTab) -> None:
    """What a clip and the button set going."""
    answer = inputs.recognise.click(
        callbacks.recognise,
        [inputs.clip, inputs.model, inputs.view, inputs.overlay],
        outputs,
        show_progress_on=outputs.status,
        concurrency_id=NETWORK,
        api_visibility="private",
    )
    answer.success(
        Asking(callbacks.looks).begin,
        None,
        [asked.questions, asked.invitation, *asked.answer],
        show_progress="hidden",
        concurrency_id="ask",
        api_visibility="private",
    )
    inputs.clip.change(
        choose,
        inputs.clip,
        [inputs.recognise, *outputs, asked.questions, asked.invitation],
        cancels=answer,  # what is still on its way is the answer to the clip before
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    inputs.clip.change(callbacks.forget, None, None, queue=False, show_progress="hidden", api_visibility="private")


def _inputs(recognizers: Sequence[Recognizer], samples: Sequence[Sample], limits: str) -> Inputs:
    first = recognizers[0]
    views, overlays = view_choices(first.card), overlay_choices(first)
    # A File takes a clip of any name; a Video would show a broken player for what browsers cannot play, like AVI.
    clip = gr.File(label="A video of any kind", height=160, elem_id="clip")
    gr.Markdown(limits, elem_id="limits")
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


def _outputs(first: Recognizer) -> tuple[Outputs, gr.Markdown, gr.Button]:
    """The components of an answer, the notes on the model, and the way to the questions."""
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
        ask = gr.Button("Ask about any point", elem_id="to-ask")
        notes = gr.Markdown(notes_of(first), elem_id="notes")
    return Outputs(status, results, scores, overlay, strip), notes, ask
