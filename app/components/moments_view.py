"""The moments of a long clip: each alone above, refined below, and the segments as chips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from .. import texts
from .player import script


def moments_view(functions: list[Callable[[Any], Any]]) -> gr.HTML:
    """Lay out the moments; the value is an event of `callbacks.moments`.

    Args:
        functions: Functions of the server that the script calls: `drawn`, `stop`.
    """
    words = texts.MOMENTS
    return gr.HTML(
        None,
        html_template=f"""<section class="moments" aria-label="{words["title"]}" hidden>
<header><h3>{words["title"]}</h3><span class="said" role="status"></span>
<button type="button" class="stop-moments">{words["stop"]}</button></header>
<div class="progress" hidden><div></div></div>
<div class="lanes" role="slider" tabindex="0" aria-label="{words["area"]}" aria-valuemin="0" aria-valuemax="0"
aria-valuenow="0">
<p>{words["alone"]}</p><div class="lane alone"></div>
<p>{words["refined"]}</p><div class="lane refined"></div>
<div class="over"><svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true"></svg>
<div class="chosen" hidden></div><div class="now"></div></div>
<div class="axis" aria-hidden="true"></div>
</div>
<p class="drew" role="status">{words["legend"]}</p>
<button type="button" class="look-here quiet" hidden>{words["here"]}</button>
<div class="chips" role="group" aria-label="{words["segments"]}"></div>
</section>""",
        js_on_load=script("percent", "time_axis", "moments"),
        apply_default_css=False,
        server_functions=functions,
        words=words,
        elem_id="moments",
        elem_classes=["bare", "strip-colours"],
    )
