"""The intake: where a clip is dropped, pasted, recorded or picked."""

from __future__ import annotations

import html
from collections.abc import Sequence
from urllib.parse import quote

import gradio as gr

from nonlocal_video.samples import Sample

from .. import texts
from .player import script


def intake(samples: Sequence[Sample], *, max_upload_mb: int) -> gr.HTML:
    """Lay out the intake. It starts no run: the stage does, when the clip has been sent.

    Args:
        samples: Sample clips, which play when pointed at; without any, their row is left out.
        max_upload_mb: Largest file that is sent, in MB.
    """
    words = texts.INTAKE
    buttons = "".join(
        f'<button type="button" class="sample" data-sample="{number}" data-name="{html.escape(sample.file_name)}">'
        f'<video src="gradio_api/file={quote(str(sample.path))}" muted loop playsinline preload="metadata" '
        f'tabindex="-1"></video><span>{html.escape(sample.title)}</span></button>'
        for number, sample in enumerate(samples)
    )
    row = f'<div class="samples"><p>{words["samples"]}</p><div>{buttons}</div></div>' if samples else ""
    return gr.HTML(
        None,
        html_template=f"""<div class="drop">
<input type="file" id="clip-file" accept="video/*,image/gif,image/webp,.avi,.mkv,.ts,.flv,.wmv,.mts,.m2ts" tabindex="-1"
aria-label="{texts.CHOOSE}">
<div class="invitation"><p class="big">{words["drop"]}</p><p class="small">{words["advice"]}</p>
<p class="another">{words["another"]}</p></div>
<div class="buttons"><button type="button" class="choose primary">{texts.CHOOSE}</button>
<button type="button" class="record">{words["record"]}</button></div>
<video class="viewfinder" muted playsinline hidden></video>
<p class="camera-says" role="status" hidden></p>
</div>
{row}""",
        js_on_load=script("intake"),
        apply_default_css=False,
        words={**words, "mostMegabytes": max_upload_mb},
        elem_id="intake",
        elem_classes="bare",
    )
