"""The clips that a visitor may pick instead of an upload."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from nonlocal_video.samples import Sample


def sample_row(samples: Sequence[Sample], clip: gr.File, *, elem_id: str) -> None:
    """Lay out a button for each sample; a press makes it the clip. Without samples there is no row."""
    if samples:
        gr.Examples(
            [[str(sample.path)] for sample in samples],
            clip,
            label="Or a sample",
            example_labels=[sample.title for sample in samples],
            elem_id=elem_id,
            api_visibility="private",
        )
