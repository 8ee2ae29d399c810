"""The row of sample clips below a place that takes clips."""

from __future__ import annotations

import html
from collections.abc import Sequence
from urllib.parse import quote

from nonlocal_video.samples import Sample

from .. import texts


def sample_row(samples: Sequence[Sample]) -> str:
    """Return the HTML of a row of buttons that play when pointed at; without samples it is empty.

    Args:
        samples: Sample clips; a button's `data-sample` is the number of its clip.
    """
    buttons = "".join(
        f'<button type="button" class="sample" data-sample="{number}" data-name="{html.escape(sample.file_name)}">'
        f'<video src="gradio_api/file={quote(str(sample.path))}" muted loop playsinline preload="metadata" '
        f'tabindex="-1"></video><span>{html.escape(sample.title)}</span></button>'
        for number, sample in enumerate(samples)
    )
    return f'<div class="samples"><p>{texts.INTAKE["samples"]}</p><div>{buttons}</div></div>' if samples else ""
