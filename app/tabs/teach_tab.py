"""Layout of the tab for teaching: classes with their clips, what is known of them, and a place to try it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .. import tool_texts as texts
from ..api import LONG, NETWORK
from ..callbacks.teach_run import Taught, Teaching
from ..components.buttons import UNQUEUED
from ..components.player import script
from ..models import Models

WORDS = texts.TEACH
_TEMPLATE = """
<div class="teach">
  <div>
    <div class="teach-classes"></div>
    <button class="teach-add" type="button">{add_class}</button>
    <p class="teach-small">{none_hint}</p>
    <p class="teach-small">{privacy}</p>
  </div>
  <div>
    <h2>{state}</h2>
    <p class="teach-says" role="status">{invitation}</p>
    <div class="teach-meter" hidden><i></i></div>
    <p class="teach-small teach-how" hidden>{how}</p>
    <h2 class="teach-worst-title" hidden>{worst}</h2>
    <ul class="teach-worst"></ul>
    <div class="teach-notes"></div>
  </div>
  <div>
    <h2>{try}</h2>
    <p class="teach-small teach-try-hint">{try_later}</p>
    <video class="teach-camera" muted playsinline hidden aria-label="{camera}"></video>
    <p class="teach-small teach-camera-says" role="status" hidden></p>
    <div class="teach-try" hidden></div>
    <div class="teach-answer" aria-live="polite"></div>
  </div>
</div>
"""


def teach_tab(models: Models, choice: gr.Dropdown) -> Teaching:
    """Lay out the tab and connect its callbacks.

    Args:
        models: The server's models, to which a visitor's own is added; the first one is taught.
        choice: The choice of a model of the tab for recognition.
    """
    teaching = Teaching(models)
    shown = gr.HTML(
        "",
        html_template=_TEMPLATE.format(**WORDS, camera=texts.LIVE_LAYOUT["picture"]),
        js_on_load=script("camera", "teach"),
        apply_default_css=False,
        words={**texts.CAMERA, **WORDS},
        elem_id="teach",
        elem_classes="bare",
    )
    with gr.Row():
        download = gr.Button(WORDS["download"], visible=False, elem_id="teach-download")
        use = gr.Button(WORDS["use"], visible=False, variant="primary", elem_id="teach-use")
    used = gr.Markdown("", elem_id="teach-used")
    downloaded = gr.File(label=WORDS["downloaded"], interactive=False, visible=False, elem_id="teach-downloaded")
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    edited = shown.edited(teaching.edit, None, shown, **UNQUEUED, trigger_mode="multiple")
    # Of several changes during a lesson the last one is learnt, with all that came before it.
    edited.success(
        teaching.learn,
        None,
        Taught(shown, download, use),
        concurrency_id=LONG,
        trigger_mode="always_last",
        **quiet,
    )
    shown.asked(teaching.ask, None, shown, concurrency_id=NETWORK, **quiet)
    download.click(teaching.download, None, downloaded, concurrency_id=LONG, api_visibility="private")
    use.click(teaching.use, None, [choice, used], concurrency_id=LONG, api_visibility="private")
    return teaching
