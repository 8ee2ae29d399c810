"""The table of a folder run: pictures, bars, filter and order, and labels that are put right in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from .. import texts_more as texts
from .player import script

_TEMPLATE = """<div class="tools" hidden></div><p class="hint" hidden></p>
<div class="rows" role="list"></div><p class="none" role="status" hidden></p><div class="after" hidden></div>"""


def folder_table(functions: list[Callable[[Any], Any]]) -> gr.HTML:
    """Lay out the table; its value says which run to show and how many rows there are.

    Args:
        functions: Functions of the server that the script calls: `rows` and `correct`.
    """
    return gr.HTML(
        None,
        html_template=_TEMPLATE,
        js_on_load=script("percent", "folder_table"),
        apply_default_css=False,
        server_functions=functions,
        words=texts.FOLDER_TABLE,
        elem_id="folder-table",
        elem_classes="bare",
    )
