"""Layout of the tab for models: what there is, what can be downloaded, and two of them side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer

from .. import texts_more as texts
from ..api import NETWORK
from ..callbacks import comparing, model_list
from ..components.buttons import UNQUEUED
from ..components.compare import compare_players
from ..components.drop_zone import Invitation, drop_zone
from ..components.headline import headline
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


def models_tab(
    recognizers: Mapping[str, Recognizer], results: Results, *, max_upload_mb: int, allow_pull: bool
) -> comparing.Comparing | None:
    """Lay out the tab and connect its callbacks; returns those of the comparison, if there is one.

    Args:
        recognizers: Recognizers by model name.
        results: Store of the results of comparisons.
        max_upload_mb: Largest upload, in MB.
        allow_pull: Whether visitors may download published models.
    """
    comparison = _comparison(recognizers, results, max_upload_mb) if len(recognizers) > 1 else None
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
    return comparison


def _comparison(recognizers: Mapping[str, Recognizer], results: Results, max_upload_mb: int) -> comparing.Comparing:
    """Lay out two players of the same clip; a clip or another model is looked at without a press."""
    words, names = texts.COMPARE, list(recognizers)
    comparison = comparing.Comparing(recognizers, results)
    with gr.Column(elem_id="compare", elem_classes="tool-flow"):
        invitation = Invitation(*(words[name] for name in Invitation._fields))
        clip = drop_zone(invitation, elem_id="compare-clip", max_upload_mb=max_upload_mb)
        with gr.Row(elem_id="compare-models"):
            first = gr.Dropdown(names, value=names[0], label=words["first"], elem_id="compare-first")
            second = gr.Dropdown(names, value=names[1], label=words["second"], elem_id="compare-second")
        with gr.Column(elem_classes="tool-result"):
            status = headline(elem_id="compare-said")
            players = compare_players()
    shown = comparing.Update(status, players)
    in_turn: dict[str, Any] = {
        "show_progress": "hidden",
        "concurrency_id": NETWORK,
        "api_visibility": "private",
        "trigger_mode": "multiple",
    }
    chosen = clip.chosen(comparison.choose, None, shown, **UNQUEUED, trigger_mode="multiple")
    chosen.then(comparison.compare, [first, second], shown, **in_turn)
    gr.on([first.input, second.input], comparison.compare, [first, second], shown, **in_turn)
    return comparison
