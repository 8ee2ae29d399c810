"""Player for the chosen clip: the browser's own, so that the server neither reads nor converts the clip."""

from __future__ import annotations

import gradio as gr

from ..tool_texts import TIMELINE as WORDS
from .player import script


def plain_player(*, elem_id: str) -> gr.HTML:
    """Lay out a player; its value is the address of the clip.

    A `gr.Video` would make the server run ffprobe, and perhaps ffmpeg, on the upload.
    """
    return gr.HTML(
        "",
        html_template=f'<video controls playsinline preload="metadata" aria-label="{WORDS["video"]}" '
        f"hidden></video>\n<p hidden>{WORDS['cannot']}</p>",
        js_on_load=script("plain_player"),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="plain-player",
    )
