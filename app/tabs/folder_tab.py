"""Layout of the tab for many clips."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer

from .. import texts_more as texts
from ..callbacks.folder_rows import FolderRows
from ..callbacks.folder_run import FolderRuns, Update
from ..choices import view_choices
from ..components.buttons import UNQUEUED
from ..components.downloads import files_to_download
from ..components.drop_zone import Invitation, drop_zone
from ..components.folder_table import folder_table
from ..components.headline import headline
from ..tool_texts import FLOW_SETTINGS

WORDS = texts.FOLDER
MAX_FOLDERS = 100
"""Most folders whose names are suggested; any other may be typed."""


class FolderTab(NamedTuple):
    """Components that other parts of the page use."""

    runs: FolderRuns
    table: gr.HTML
    """It triggers `teach` with the identity of a run."""


def folder_tab(
    recognizers: Mapping[str, Recognizer], rows: FolderRows, root: Path | None, limits: str, *, max_upload_mb: int
) -> FolderTab:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name; the first is the default.
        rows: Store of the rows.
        root: Folder that visitors may classify, with its subfolders; None offers none.
        limits: Limits of uploads, in words.
        max_upload_mb: Largest upload, in MB.
    """
    runs = FolderRuns(recognizers, rows, root)
    first = next(iter(recognizers.values()))
    views = view_choices(first.card)
    invitation = Invitation(*(WORDS[name] for name in Invitation._fields))
    with gr.Column(elem_id="folder", elem_classes="tool-flow"):
        files = drop_zone(
            invitation, elem_id="files", max_upload_mb=max_upload_mb, multiple=True, more=_folders_of(root)
        )
        with gr.Accordion(FLOW_SETTINGS, open=False, elem_id="folder-settings", elem_classes="tab-settings"):
            model = gr.Dropdown(
                list(recognizers),
                value=first.card.name,
                label=WORDS["model"],
                visible=len(recognizers) > 1,
                elem_id="folder-model",
            )
            view = gr.Radio(views, value=views[0][1], label=WORDS["view"], elem_id="folder-views")
            gr.Markdown(limits, elem_id="folder-limits", elem_classes="small-print")
        with gr.Column(elem_id="folder-result", elem_classes="tool-result"):
            said = headline(elem_id="folder-said")
            table = folder_table(rows.functions())
            downloads = files_to_download(WORDS["downloads"], elem_id="folder-downloads")
    shown = Update(said, table, downloads)
    at_once: dict[str, Any] = {**UNQUEUED, "trigger_mode": "multiple"}
    for begun in (files.chosen(runs.choose, None, shown, **at_once), said.again(runs.again, None, shown, **at_once)):
        begun.then(
            runs.run,
            [model, view],
            shown,
            show_progress="hidden",
            concurrency_id="folder",
            api_visibility="private",
            trigger_mode="multiple",
        )
    said.stop(runs.stop, None, None, **UNQUEUED)
    return FolderTab(runs, table)


def _folders_of(root: Path | None) -> str:
    """Return the HTML that offers folders of the server; nothing without one."""
    if root is None:
        return ""
    with os.scandir(root) as entries:
        names = sorted(one.name for one in entries if one.is_dir(follow_symlinks=False) and one.name[0] != ".")
    options = "".join(f'<option value="{html.escape(name)}">' for name in names[:MAX_FOLDERS])
    words = {name: html.escape(WORDS[name].format(root=root.name)) for name in ("root", "below", "everything", "look")}
    return f"""<div class="server"><span>{words["root"]}</span>
<input type="text" list="folders-of-root" placeholder="{words["everything"]}" aria-label="{words["below"]}">
<datalist id="folders-of-root">{options}</datalist>
<button type="button" data-take>{words["look"]}</button></div>"""
