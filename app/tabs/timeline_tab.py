"""Layout of the tab for long videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.samples import Sample

from ..api import LONG
from ..callbacks.timeline_run import HEADERS, INVITATION, TimelineRuns, Update
from ..callbacks.timeline_words import seconds_of
from ..choices import STRIDES, timeline_cost, window_choices
from ..components.buttons import UNQUEUED, offer_cancel, offer_start, start_and_cancel
from ..components.plain_player import player_of
from ..components.sample_row import sample_row
from ..components.timeline_plot import timeline_plot

_SEEK = "(seconds) => document.dispatchEvent(new CustomEvent('timeline-seek', {detail: seconds}))"


def timeline_tab(recognizers: Mapping[str, Recognizer], samples: Sequence[Sample], limits: str) -> TimelineRuns:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name; the first is the default.
        samples: Sample clips; without any, their row is left out.
        limits: Limits of uploads, in words.
    """
    runs = TimelineRuns(recognizers)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            clip = gr.File(label="A long video of any kind", height=160, elem_id="timeline-clip")
            sample_row(samples, clip, elem_id="timeline-samples")
            start, cancel = start_and_cancel(
                ("Start", "Cancel"), elem_ids=("timeline-start", "timeline-cancel"), answers_in="timeline-status"
            )
            gr.Markdown(limits, elem_id="timeline-limits", elem_classes="small-print")
            choices = _choices(recognizers)
        with gr.Column(scale=3, min_width=320):
            status = gr.Markdown(
                INVITATION, container=True, min_height=60, elem_id="timeline-status", elem_classes="status"
            )
            player_of(clip, elem_id="timeline-player")
            with gr.Column(visible=False, elem_id="timeline-results") as results:
                shown = Update(
                    status, results, timeline_plot(player="timeline-player", elem_id="timeline-plot"), *_results()
                )
    offer_cancel(start, cancel, runs.press)
    run = start.click(
        runs.run,
        [clip, *choices],
        shown,
        show_progress_on=shown.status,
        show_progress="minimal",
        concurrency_id=LONG,
        api_visibility="private",
        trigger_mode="multiple",
    )
    cancel.click(runs.cancel, None, shown, trigger_mode="multiple", **UNQUEUED)
    clip.change(runs.choose, None, shown, trigger_mode="multiple", **UNQUEUED)
    offer_start(start, cancel, clip, run, runs.is_running)
    _seek_from(shown.table)
    return runs


def _choices(recognizers: Mapping[str, Recognizer]) -> list[gr.Component]:
    """Lay out model, window, stride, threshold and shortest segment, the arguments of `TimelineRuns.run`."""
    first = next(iter(recognizers.values())).card
    windows = window_choices(first)
    window = gr.Radio(windows, value=windows[0][1], label="One look takes in", elem_id="timeline-window")
    stride = gr.Radio(STRIDES, value=STRIDES[0][1], label="The next look begins after", elem_id="timeline-stride")
    cost = gr.Markdown(
        timeline_cost(first, windows[0][1], STRIDES[0][1]), elem_id="timeline-cost", elem_classes="small-print"
    )
    with gr.Accordion("Segments", open=False, elem_id="timeline-rule"):
        threshold = gr.Slider(0, 1, 0, step=0.05, label="Below this score there is no action", elem_id="threshold")
        shortest = gr.Slider(
            0, 30, 0, step=0.5, label="Shorter ones go to their neighbours, seconds", elem_id="shortest"
        )
    model = gr.Dropdown(
        list(recognizers),
        value=first.name,
        label="Model",
        visible=len(recognizers) > 1,
        elem_id="timeline-model",
    )

    def offer(name: str) -> Any:
        return gr.update(choices=window_choices(recognizers[name].card), value=windows[0][1])

    def count(name: str, chosen: str, every: float) -> str:
        return timeline_cost(recognizers[name].card, chosen, every)

    model.change(offer, model, window, **UNQUEUED)
    gr.on([model.change, window.change, stride.change], count, [model, window, stride], cost, **UNQUEUED)
    return [model, window, stride, threshold, shortest]


def _results() -> tuple[gr.Dataframe, gr.File]:
    table = gr.Dataframe(
        headers=HEADERS,
        datatype="str",
        column_widths=["24%", "24%", "32%", "20%"],
        value=[],
        interactive=False,
        wrap=True,
        max_height=360,
        label="Segments",
        elem_id="timeline-table",
    )
    downloads = gr.File(
        label="The whole timeline",
        file_count="multiple",
        interactive=False,
        visible=False,
        elem_id="timeline-downloads",
    )
    return table, downloads


def _seek_from(table: gr.Dataframe) -> None:
    """Seek to the start of a segment when it is clicked."""

    def begin(event: gr.SelectData) -> float:
        return seconds_of(event.row_value[0])

    seconds = gr.Number(visible=False)
    table.select(begin, None, seconds, **UNQUEUED).then(None, seconds, None, js=_SEEK, **UNQUEUED)
