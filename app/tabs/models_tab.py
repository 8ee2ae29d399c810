"""Layout of the tab for models: what there is, what can be downloaded, and two of them side by side."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer

from .. import texts_more as texts
from ..api import NETWORK
from ..callbacks import comparing, model_list
from ..components.compare import compare_players
from ..results.store import Results

_SCRIPT = """
element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-name]");
    if (button) {
        button.disabled = true;
        setTimeout(() => { button.disabled = false; }, 3000);
        const consent = button.parentElement.querySelector("input");
        trigger("pull", { name: button.dataset.name, accepted: consent?.checked ?? false });
    }
});
"""


def models_tab(recognizers: Mapping[str, Recognizer], results: Results, *, allow_pull: bool) -> None:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name.
        results: Store of the results of comparisons.
        allow_pull: Whether visitors may download published models.
    """
    if len(recognizers) > 1:
        _comparison(recognizers, results)
    listed = model_list.ModelList(recognizers, allow_pull)
    status = gr.Markdown("", elem_id="models-status")
    models = gr.HTML(
        listed.as_html(),
        js_on_load=_SCRIPT,
        apply_default_css=False,
        elem_id="models",
    )
    models.pull(
        listed.pull,
        None,
        model_list.Update(status, models),
        show_progress="hidden",
        concurrency_id="pull",
        api_visibility="private",
    )


def _comparison(recognizers: Mapping[str, Recognizer], results: Results) -> None:
    words, names = texts.COMPARE, list(recognizers)
    comparison = comparing.Comparing(recognizers, results)
    with gr.Column(elem_id="compare"):
        gr.Markdown(f"### {words['title']}")
        with gr.Row():
            clip = gr.File(label=words["clip"], height=110, elem_id="compare-clip")
            with gr.Column(min_width=240):
                first = gr.Dropdown(names, value=names[0], label=words["first"], elem_id="compare-first")
                second = gr.Dropdown(names, value=names[1], label=words["second"], elem_id="compare-second")
        start = gr.Button(words["start"], variant="primary", elem_id="compare-start")
        status = gr.Markdown("", elem_id="compare-status")
        players = compare_players()
    start.click(
        comparison.compare,
        [clip, first, second],
        comparing.Update(status, players),
        show_progress="hidden",
        concurrency_id=NETWORK,
        api_visibility="private",
    )
