"""Bar below an answer: its link, its files, and the results that this browser has seen lately."""

from __future__ import annotations

import gradio as gr

from .. import texts_more as texts
from .player import script


def keep_bar() -> gr.HTML:
    """Lay out the bar below an answer; it follows the stage by its events."""
    words = texts.KEEP
    template = f"""<div class="keep" role="group" aria-label="{words["bar"]}" hidden>
<a class="link" href="/">{words["link"]}</a>
<button type="button" class="copy">{words["copy"]}</button>
<details class="save"><summary>{words["save"]}</summary><div class="files"></div></details>
<button type="button" class="similar" hidden>{words["similar"]}</button></div>"""
    return gr.HTML(
        None,
        html_template=template,
        js_on_load=script("percent", "recent", "address", "gear", "keep_bar"),
        apply_default_css=False,
        words={**words, "maps": texts.MAP_NAMES},
        elem_id="keep-bar",
        elem_classes="bare",
    )


def recent_results() -> gr.HTML:
    """Lay out the results that this browser has seen lately; nothing without any."""
    return gr.HTML(
        None,
        html_template=f'<section class="recent" aria-label="{texts.KEEP["recent"]}" hidden>'
        f"<p>{texts.KEEP['recent']}</p><ul></ul></section>",
        js_on_load=script("percent", "recent", "recent_list"),
        apply_default_css=False,
        elem_id="recent-results",
        elem_classes="bare",
    )
