"""The files of a finished run."""

from __future__ import annotations

import gradio as gr


def files_to_download(label: str, *, elem_id: str) -> gr.File:
    """Lay out links to files, hidden until there are some."""
    return gr.File(
        label=label,
        file_count="multiple",
        interactive=False,
        visible=False,
        elem_id=elem_id,
        elem_classes="tool-downloads",
    )
