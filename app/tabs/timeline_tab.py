"""Layout of the tab for long videos: a video, what happens in it, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.samples import Sample

from .. import texts
from .. import tool_texts as more
from ..api import LONG
from ..callbacks.timeline_run import TimelineRuns, Update
from ..choices import STRIDES, timeline_cost, window_choices
from ..components.buttons import UNQUEUED
from ..components.downloads import files_to_download
from ..components.drop_zone import Invitation, drop_zone
from ..components.headline import headline
from ..components.plain_player import plain_player
from ..components.timeline_plot import timeline_plot

WORDS = more.TIMELINE


def timeline_tab(
    recognizers: Mapping[str, Recognizer], samples: Sequence[Sample], limits: str, *, max_upload_mb: int
) -> TimelineRuns:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name; the first is the default.
        samples: Sample clips; without any, their row is left out.
        limits: Limits of uploads, in words.
        max_upload_mb: Largest upload, in MB.
    """
    runs = TimelineRuns(recognizers, [sample.path for sample in samples])
    invitation = Invitation(*(WORDS[name] for name in Invitation._fields))
    with gr.Column(elem_id="timeline", elem_classes="tool-flow"):
        clip = drop_zone(invitation, elem_id="timeline-clip", max_upload_mb=max_upload_mb, samples=samples)
        settings = _settings(recognizers, limits)
        with gr.Column(elem_id="timeline-result", elem_classes="tool-result"):
            said = headline(elem_id="timeline-said")
            player = plain_player(elem_id="timeline-player")
            plot = timeline_plot(player="timeline-player", elem_id="timeline-plot")
            downloads = files_to_download(WORDS["downloads"], elem_id="timeline-downloads")
    shown = Update(said, plot, downloads)
    at_once: dict[str, Any] = {**UNQUEUED, "trigger_mode": "multiple"}
    chosen = clip.chosen(runs.choose, None, [*shown, player], **at_once)
    again = said.again(runs.again, None, shown, **at_once)
    for begun in (chosen, again):
        begun.then(
            runs.run,
            settings,
            shown,
            show_progress="hidden",
            concurrency_id=LONG,
            api_visibility="private",
            trigger_mode="multiple",
        )
    said.stop(runs.cancel, None, shown, **at_once)
    return runs


def _settings(recognizers: Mapping[str, Recognizer], limits: str) -> list[gr.Component]:
    """Lay out model, window, stride, threshold and shortest segment, the arguments of `TimelineRuns.run`."""
    first = next(iter(recognizers.values())).card
    windows = window_choices(first)
    with gr.Accordion(more.FLOW_SETTINGS, open=False, elem_id="timeline-settings", elem_classes="tab-settings"):
        model = gr.Dropdown(
            list(recognizers),
            value=first.name,
            label=texts.MODEL,
            visible=len(recognizers) > 1,
            elem_id="timeline-model",
        )
        window = gr.Radio(windows, value=windows[0][1], label=WORDS["window"], elem_id="timeline-window")
        stride = gr.Radio(STRIDES, value=STRIDES[0][1], label=WORDS["stride"], elem_id="timeline-stride")
        cost = gr.Markdown(
            timeline_cost(first, windows[0][1], STRIDES[0][1]), elem_id="timeline-cost", elem_classes="small-print"
        )
        threshold = gr.Slider(0, 1, 0, step=0.05, label=WORDS["threshold"], elem_id="threshold")
        shortest = gr.Slider(0, 30, 0, step=0.5, label=WORDS["shortest"], elem_id="shortest")
        gr.Markdown(limits, elem_id="timeline-limits", elem_classes="small-print")

    def offer(name: str) -> Any:
        return gr.update(choices=window_choices(recognizers[name].card), value=windows[0][1])

    def count(name: str, chosen: str, every: float) -> str:
        return timeline_cost(recognizers[name].card, chosen, every)

    model.change(offer, model, window, **UNQUEUED)
    gr.on([model.change, window.change, stride.change], count, [model, window, stride], cost, **UNQUEUED)
    return [model, window, stride, threshold, shortest]
