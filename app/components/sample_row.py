"""Sample clips that a visitor may choose instead of an upload."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from nonlocal_video.samples import Sample


def sample_row(samples: Sequence[Sample], clip: gr.File, *, elem_id: str) -> None:
    """Lay out a button for each sample, which chooses it as the clip; nothing without samples."""
    if samples:
        gr.Examples(
            [[str(sample.path)] for sample in samples],
            clip,
            label="Or a sample",
            example_labels=[sample.title for sample in samples],
            elem_id=elem_id,
            api_visibility="private",
        )
