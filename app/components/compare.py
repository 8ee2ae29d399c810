"""Two players in step, with the scores of both models below them."""

from __future__ import annotations

from html import escape

import gradio as gr

from .. import texts_more as texts
from .player import script


def compare_players() -> gr.HTML:
    """Lay out the players; the value has the result, the scores and the seen part of the clip for each side."""
    words = {name: escape(text) for name, text in texts.COMPARE.items()}
    return gr.HTML(
        None,
        html_template=f"""<div class="sides"></div><div class="controls" hidden>
<button type="button">{words["play"]}</button>
<input type="range" step="0.01" aria-label="{words["scrub"]}"><span></span></div>
<p class="legend" hidden>{words["legend"]}</p>""",
        js_on_load=script("percent", "compare"),
        apply_default_css=False,
        words=texts.COMPARE,
        elem_id="compare-players",
        elem_classes="bare",
    )
