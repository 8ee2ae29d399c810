"""A place that takes clips, dropped, pasted, picked or samples, for the tabs beside Recognise."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import gradio as gr

from nonlocal_video.samples import Sample

from .. import texts, tool_texts
from .player import script
from .sample_row import sample_row

KINDS = "video/*,image/gif,image/webp,.avi,.mkv,.ts,.flv,.wmv,.mts,.m2ts"


class Invitation(NamedTuple):
    """Words of an empty drop zone."""

    drop: str
    """Headline: what to drop, in large letters."""
    advice: str
    """Sentence about what the tab does with it."""
    choose: str
    """The button."""
    another: str
    """Words shown once something was dropped."""


def drop_zone(
    words: Invitation,
    *,
    elem_id: str,
    max_upload_mb: int,
    multiple: bool = False,
    samples: Sequence[Sample] = (),
    more: str = "",
    whole_tab: bool = True,
) -> gr.HTML:
    """Lay out a drop zone. It triggers `chosen` with `paths` of uploads, the number of a `sample`, or a `folder`.

    Args:
        words: What it says.
        elem_id: ID of its element.
        max_upload_mb: Largest file that is sent, in MB.
        multiple: Whether it takes several clips at once.
        samples: Sample clips, which play when pointed at.
        more: HTML below the buttons; a click on a button `data-take` in it chooses the folder that an `input` names.
        whole_tab: Whether it takes clips dropped or pasted anywhere while the tab is shown.
    """
    said = Invitation(*map(html.escape, words))
    return gr.HTML(
        None,
        html_template=f"""<div class="drop">
<input type="file" accept="{KINDS}"{" multiple" if multiple else ""} tabindex="-1" aria-label="{said.choose}">
<div class="invitation"><p class="big">{said.drop}</p><p class="small">{said.advice}</p>
<p class="another">{said.another}</p></div>
<div class="buttons"><button type="button" class="choose primary">{said.choose}</button></div>
{more}
</div>
{sample_row(samples)}""",
        js_on_load=script("drop_zone"),
        apply_default_css=False,
        words={
            "sending": tool_texts.SENDING,
            "sendingMany": tool_texts.SENDING_MANY,
            "notSent": texts.STAGE["notSent"],
            "tooLarge": texts.INTAKE["tooLarge"],
            "several": tool_texts.SEVERAL,
            "mostMegabytes": max_upload_mb,
            "multiple": multiple,
            "wholeTab": whole_tab,
        },
        elem_id=elem_id,
        elem_classes=["bare", "drop-zone"],
    )
