"""Layout of Recognise: the intake, the answer with its player, and the moments of a long clip."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.samples import Sample

from .. import texts
from ..api import LONG, NETWORK
from ..callbacks.asking import Asking
from ..callbacks.choosing import Choosing
from ..callbacks.events import Event
from ..callbacks.moments import Moments
from ..callbacks.recognise import Recognition
from ..choices import about_model, standard_view, view_choices
from ..components.buttons import UNQUEUED
from ..components.intake import intake
from ..components.keep_bar import keep_bar, recent_results
from ..components.moments_view import moments_view
from ..components.stage import stage
from ..results.store import Results

SETTINGS_CHANGED = "() => document.dispatchEvent(new CustomEvent('settings-changed'))"
AT_ONCE: dict[str, Any] = {**UNQUEUED, "trigger_mode": "multiple"}
"""Options of listeners whose every event counts: none is ignored because an earlier one is still on its way."""


class Settings(NamedTuple):
    """Components behind the gear, in the order in which callbacks take their values."""

    model: gr.Dropdown
    view: gr.Radio
    region: gr.Textbox
    start: gr.Number
    end: gr.Number


class RecogniseTab(NamedTuple):
    """Components that other parts of the page use."""

    recognition: Recognition
    """Runs and explanations of all visitors; `recognition.visits.current(session)` is a visitor's run."""
    stage: gr.HTML
    """The answer; its value is the last event."""
    model: gr.Dropdown
    """The choice of a model."""
    keep: gr.HTML
    """Actions on an answer; it triggers `similar` with the run and the seconds that the player shows."""


def recognise_tab(
    recognizers: Mapping[str, Recognizer],
    samples: Sequence[Sample],
    limits: str,
    *,
    results: Results,
    max_upload_mb: int,
    others: Callable[[], int] = lambda: 0,
    queued: Callable[[], Collection[str]] = lambda: (),
) -> RecogniseTab:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name; the first is the default.
        samples: Sample clips; without any, their row is left out.
        limits: Limits of uploads, in words.
        results: Store of the results.
        max_upload_mb: Largest upload, in MB.
        others: Returns how many wait elsewhere for the same network.
        queued: Returns the sessions whose runs are queued.
    """
    recognition = Recognition(recognizers, results, others=others, queued=queued)
    asking, moments = Asking(recognition), Moments(recognition)
    with gr.Column(elem_id="flow"):
        intake(samples, max_upload_mb=max_upload_mb)
        settings, about = _settings(recognizers, limits)
        with gr.Column(elem_id="result"):
            shown = stage(asking.functions())
            with gr.Column(elem_id="keep"):
                keep = keep_bar()
            below = moments_view(moments.functions())
        recent_results()
    choosing = Choosing(recognition, [sample.path for sample in samples])
    _connect(settings, shown, below, choosing, moments)
    for changed in (settings.model.input, settings.view.input):
        changed(None, js=SETTINGS_CHANGED, **AT_ONCE)
    for typed in (settings.region, settings.start, settings.end):
        typed.submit(None, js=SETTINGS_CHANGED, **AT_ONCE)
    settings.model.change(_choices_of(recognizers, limits), settings.model, [settings.view, about], **UNQUEUED)
    return RecogniseTab(recognition, shown, settings.model, keep)


def _connect(settings: Settings, shown: gr.HTML, below: gr.HTML, choosing: Choosing, moments: Moments) -> None:
    """Connect a choice to its run: the first event at once, the answer in its turn, the moments after it."""

    def run(request: gr.Request) -> Iterator[Event]:
        yield from choosing.recognition.run(request.session_hash or "")

    def unheard(request: gr.Request) -> Iterator[Event]:
        yield from choosing.recognition.unheard(request.session_hash or "")

    def long_clip(request: gr.Request) -> Iterator[Event]:
        yield from moments.run(request.session_hash or "")

    in_turn: dict[str, Any] = {
        "show_progress": "hidden",
        "api_visibility": "private",
        "trigger_mode": "multiple",
    }
    outputs = [shown, settings.region, settings.start, settings.end]
    for listener, function in ((shown.begin, choosing.begin), (shown.again, choosing.again)):
        chosen = listener(function, list(settings), outputs, **AT_ONCE)
        chosen.then(run, None, shown, concurrency_id=NETWORK, **in_turn)
    shown.unheard(unheard, None, shown, concurrency_id="unheard", **in_turn)
    shown.long(long_clip, None, below, concurrency_id=LONG, **in_turn)


def _settings(recognizers: Mapping[str, Recognizer], limits: str) -> tuple[Settings, gr.Markdown]:
    """Lay out what is behind the gear, the words about the model last."""
    first = next(iter(recognizers.values()))
    views = view_choices(first.card)
    with gr.Accordion(texts.SETTINGS, open=False, elem_id="settings"):
        model = gr.Dropdown(
            list(recognizers), value=first.card.name, label=texts.MODEL, visible=len(recognizers) > 1, elem_id="model"
        )
        view = gr.Radio(views, value=views[0][1], label=texts.VIEW, info=standard_view(first.card), elem_id="views")
        region = gr.Textbox(
            "", label=texts.REGION, info=texts.REGION_INFO, placeholder="0,0,1,1", max_lines=1, elem_id="region"
        )
        with gr.Row():
            start = gr.Number(None, label=texts.START, minimum=0, min_width=100, elem_id="start")
            end = gr.Number(None, label=texts.END, minimum=0, min_width=100, elem_id="end")
        about = gr.Markdown(
            about_model(first.card, str(first.device), limits), elem_id="limits", elem_classes="small-print"
        )
    return Settings(model, view, region, start, end), about


def _choices_of(recognizers: Mapping[str, Recognizer], limits: str) -> Callable[[str], Any]:
    def offer(model: str) -> Any:
        card, device = recognizers[model].card, str(recognizers[model].device)
        return gr.update(choices=view_choices(card), info=standard_view(card)), about_model(card, device, limits)

    return offer
