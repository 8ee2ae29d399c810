"""Layout of the tab for the camera: what it sees, and what that is called, continuously."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer

from .. import tool_texts as texts
from ..components.player import script

_TEMPLATE = """
<div class="live">
  <div>
    <div class="live-picture">
      <video class="live-video" muted playsinline aria-label="{picture}"></video>
      <p class="live-word" role="status">{invitation}</p>
    </div>
    <div class="live-controls">
      <button class="live-start primary" type="button">{start}</button>
      <select class="live-view" aria-label="{view}" {hidden}>
        <option value="quick">{quick}</option><option value="standard">{standard}</option>
      </select>
    </div>
    <p class="live-small">{privacy}</p>
  </div>
  <div>
    <p class="live-label" aria-live="polite">{nothing}</p>
    <p class="live-sure">{nothing_more}</p>
    <ol class="live-bars"></ol>
    <p class="live-small live-pace"></p>
  </div>
  <div class="live-past">
    <h2>{past}</h2>
    <div class="live-strip" role="img" aria-label="{past}"></div>
    <div class="live-axis" aria-hidden="true"><span>{minute}</span><span>{now}</span></div>
    <ul class="live-changes"></ul>
  </div>
</div>
"""


def live_tab(recognizers: Mapping[str, Recognizer]) -> gr.HTML:
    """Lay out the tab; its script talks to `live_routes`.

    Args:
        recognizers: Recognizers by model name; the first one answers.
    """
    first = next(iter(recognizers.values()))
    template = _TEMPLATE.format(
        **texts.LIVE_LAYOUT, start=texts.LIVE["start"], hidden="" if first.card.fast_input else "hidden"
    )
    return gr.HTML(
        "",
        html_template=template,
        js_on_load=script("percent", "camera", "live"),
        apply_default_css=False,
        words={**texts.CAMERA, **texts.LIVE},
        elem_id="live",
        elem_classes="bare",
    )
