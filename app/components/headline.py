"""The headline of a tab: what it does or has found, how far and how long still, with Stop and Look again."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from nonlocal_video.errors import VideoError

from .. import texts
from ..messages import title_of, words_of
from .player import script

EMPTY, WORKING, DONE, STOPPED, ERROR = "empty", "working", "done", "stopped", "error"
"""States of a tab."""
NO_FILES = gr.update(value=None, visible=False)
"""Update of the downloads before there are any."""


def headline(*, elem_id: str) -> gr.HTML:
    """Lay out a headline; its value is made by `said`. It triggers `stop` and `again`."""
    words = {name: html.escape(str(texts.STAGE[name])) for name in ("stop", "again", "details")}
    return gr.HTML(
        None,
        html_template=f"""<section class="said">
<h2 class="headline" aria-live="polite"></h2>
<p class="doing"></p>
<div class="progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" hidden><div></div></div>
<div class="acts"><button type="button" class="stop-run quiet" hidden>{words["stop"]}</button>
<button type="button" class="run-again quiet" hidden>{words["again"]}</button></div>
<details class="details" hidden><summary>{words["details"]}</summary><ul></ul></details>
</section>""",
        js_on_load=script("headline"),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="bare",
    )


def said(
    state: str,
    head: str,
    doing: str = "",
    *,
    share: float | None = None,
    details: Sequence[str] = (),
    can_stop: bool = True,
    can_repeat: bool = False,
) -> dict[str, Any]:
    """Return the value of a headline.

    Args:
        state: State of the tab.
        head: The headline.
        doing: The line below it.
        share: How much of the work is done, from 0 to 1; None if that is not known.
        details: Lines behind a fold.
        can_stop: Whether the work can be stopped.
        can_repeat: Whether the same can be looked at again, perhaps with other settings.
    """
    return {
        "state": state,
        "headline": head,
        "doing": doing,
        "share": share,
        "details": list(details),
        "can_stop": can_stop,
        "can_repeat": can_repeat,
    }


def failed(error: Exception, folder: Path) -> dict[str, Any]:
    """Return the value of a headline that says why something failed, without the path of this folder."""
    if isinstance(error, VideoError):
        return said(ERROR, title_of(error), words_of(error, folder))
    return said(ERROR, words_of(error, folder))
