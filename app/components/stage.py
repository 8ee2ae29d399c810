"""The stage: the answer in words, its bars, and the player; one component that shows every state of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from .. import texts
from .player import PLAYER_SCRIPTS, player_template, player_words, script


def stage(functions: list[Callable[[Any], Any]]) -> gr.HTML:
    """Lay out the stage; its value is an event of `callbacks.recognise`.

    It triggers `again` (with the part of the picture, or the time, to look at) and calls the functions of the server.

    Args:
        functions: Functions of the server that the script calls: `standing`, `stop`, `evidence`, `point`, `check`.
    """
    words = texts.STAGE
    template = f"""<section class="said" aria-live="polite">
<p class="clip-name"></p>
<h2 class="headline"></h2>
<p class="confidence"></p>
<p class="doing"></p>
<p class="left"></p>
<div class="progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" hidden><div></div></div>
<p class="part" hidden>{words["onlyHere"]}
<button type="button" class="quiet whole-picture">{words["wholePicture"]}</button></p>
<div class="acts"><button type="button" class="stop-run" hidden>{words["stop"]}</button>
<button type="button" class="run-again" hidden>{words["again"]}</button></div>
</section>
{player_template()}
<section class="answers">
<div class="bars"></div>
<details class="details" hidden><summary>{words["details"]}</summary><ul></ul></details>
</section>"""
    return gr.HTML(
        None,
        html_template=template,
        js_on_load=script(*PLAYER_SCRIPTS, "stage"),
        apply_default_css=False,
        server_functions=functions,
        words={**words, "player": {**player_words(), "captions": texts.MOMENTS["segments"]}},
        elem_id="stage",
        elem_classes="bare",
    )
