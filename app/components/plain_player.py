"""Player for the chosen clip: the browser's own, so that the server neither reads nor converts the clip."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from .buttons import UNQUEUED

CANNOT_PLAY = "Your browser cannot play this kind of file. Everything else on this page works with it."
_SCRIPT = Path(__file__).with_name("plain_player.js").read_text(encoding="utf-8")
_TEMPLATE = f"""<video controls playsinline preload="metadata" aria-label="The chosen video" hidden></video>
<p hidden>{CANNOT_PLAY}</p>"""
_ADDRESS = "(file) => file ? file.url : ''"


def player_of(clip: gr.File, *, elem_id: str) -> gr.HTML:
    """Lay out a player of the current clip.

    A `gr.Video` would make the server run ffprobe, and perhaps ffmpeg, on the upload.
    """
    player = gr.HTML(
        "",
        html_template=_TEMPLATE,
        js_on_load=_SCRIPT,
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="plain-player",
    )
    clip.change(None, clip, player, js=_ADDRESS, **UNQUEUED)
    return player
