"""The intake: where a clip is dropped, pasted, recorded or picked."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from nonlocal_video.samples import Sample

from .. import texts
from .drop_zone import KINDS
from .player import script
from .sample_row import sample_row


def intake(samples: Sequence[Sample], *, max_upload_mb: int) -> gr.HTML:
    """Lay out the intake. It starts no run: the stage does, when the clip has been sent.

    Args:
        samples: Sample clips, which play when pointed at; without any, their row is left out.
        max_upload_mb: Largest file that is sent, in MB.
    """
    words = texts.INTAKE
    return gr.HTML(
        None,
        html_template=f"""<div class="drop">
<input type="file" id="clip-file" accept="{KINDS}" tabindex="-1"
aria-label="{texts.CHOOSE}">
<div class="invitation"><p class="big">{words["drop"]}</p><p class="small">{words["advice"]}</p>
<p class="another">{words["another"]}</p></div>
<div class="buttons"><button type="button" class="choose primary">{texts.CHOOSE}</button>
<button type="button" class="record">{words["record"]}</button></div>
<video class="viewfinder" muted playsinline hidden></video>
<p class="camera-says" role="status" hidden></p>
</div>
{sample_row(samples)}""",
        js_on_load=script("intake"),
        apply_default_css=False,
        words={**words, "mostMegabytes": max_upload_mb},
        elem_id="intake",
        elem_classes=["bare", "drop-zone"],
    )
