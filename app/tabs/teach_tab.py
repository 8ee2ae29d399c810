"""Layout of the tab for teaching: classes with their clips, what is known of them, and a place to try it."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr
from gradio.events import Dependency

from .. import tool_texts as texts
from ..api import LONG, NETWORK
from ..callbacks.folder_rows import FolderRows
from ..callbacks.teach_run import Taught, Teaching
from ..components.buttons import UNQUEUED
from ..components.player import script
from ..models import Models
from ..texts import STAGE

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


QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_OPEN = "() => { location.hash = 'teach'; }"


class TeachTab(NamedTuple):
    """Components that other parts of the page use."""

    teaching: Teaching
    outputs: Taught


def teach_tab(models: Models, choice: gr.Dropdown) -> TeachTab:
    """Lay out the tab and connect its callbacks.

    Args:
        models: The server's models, to which a visitor's own is added; the first one is taught.
        choice: The choice of a model of the tab for recognition.
    """
    teaching = Teaching(models)
    shown = gr.HTML(
        "",
        html_template=_TEMPLATE.format(**WORDS, camera=texts.LIVE_LAYOUT["picture"]),
        js_on_load=script("percent", "camera", "teach"),
        apply_default_css=False,
        words={**texts.CAMERA, **WORDS, "notSent": STAGE["notSent"]},
        elem_id="teach",
        elem_classes="bare",
    )
    with gr.Row(elem_classes="tool-buttons"):
        download = gr.Button(WORDS["download"], visible=False, elem_id="teach-download")
        use = gr.Button(WORDS["use"], visible=False, variant="primary", elem_id="teach-use")
    used = gr.Markdown("", elem_id="teach-used")
    downloaded = gr.File(
        label=WORDS["downloaded"],
        interactive=False,
        visible=False,
        elem_id="teach-downloaded",
        elem_classes="tool-downloads",
    )
    tab = TeachTab(teaching, Taught(shown, download, use))
    edited = shown.edited(teaching.edit, None, shown, **UNQUEUED, trigger_mode="multiple")
    _learn_after(edited, tab)
    shown.asked(teaching.ask, None, shown, concurrency_id=NETWORK, **QUIET)
    download.click(teaching.download, None, downloaded, concurrency_id=LONG, api_visibility="private")
    use.click(teaching.use, None, [choice, used], concurrency_id=LONG, api_visibility="private")
    return tab


def teach_from(table: gr.HTML, rows: FolderRows, tab: TeachTab) -> None:
    """Let the table of a folder run teach: its corrected clips become examples, and the tab opens."""

    def take(event: gr.EventData, request: gr.Request) -> str:
        return tab.teaching.take(rows, event, request)

    taken = table.teach(take, None, tab.outputs.shown, **UNQUEUED)
    taken.success(None, None, None, js=_OPEN, **UNQUEUED)
    _learn_after(taken, tab)


def _learn_after(changed: Dependency, tab: TeachTab) -> None:
    # When several changes arrive during a lesson, the next lesson covers all of them.
    changed.success(tab.teaching.learn, None, tab.outputs, concurrency_id=LONG, trigger_mode="always_last", **QUIET)
