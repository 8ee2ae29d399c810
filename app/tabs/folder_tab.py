"""Layout of the tab for many clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer

from .. import texts_more as texts
from ..callbacks.folder_rows import FolderRows
from ..callbacks.folder_run import FolderRuns, Update
from ..choices import view_choices
from ..components.buttons import UNQUEUED, start_and_cancel
from ..components.folder_table import folder_table


def folder_tab(recognizers: Mapping[str, Recognizer], rows: FolderRows, root: Path | None, limits: str) -> FolderRuns:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name; the first is the default.
        rows: Store of the rows.
        root: Folder that visitors may classify, with its subfolders; None offers none.
        limits: Limits of uploads, in words.
    """
    runs = FolderRuns(recognizers, rows, root)
    first, words = next(iter(recognizers.values())), texts.FOLDER
    views = view_choices(first.card)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            uploads = gr.File(label=words["files"], file_count="multiple", height=200, elem_id="files")
            folder = gr.Textbox(
                label=words["folder"],
                info=words["below"].format(root=root.name) if root else None,
                visible=root is not None,
                elem_id="folder-name",
            )
            start, stop = start_and_cancel(
                (words["start"], words["stop"]),
                elem_ids=("folder-start", "folder-stop"),
                answers_in="folder-status",
                ready=True,
            )
            gr.Markdown(limits, elem_id="folder-limits", elem_classes="small-print")
            view = gr.Radio(views, value=views[0][1], label=words["view"], elem_id="folder-views")
            model = gr.Dropdown(
                list(recognizers),
                value=first.card.name,
                label=words["model"],
                visible=len(recognizers) > 1,
                elem_id="folder-model",
            )
        with gr.Column(scale=3, min_width=320):
            status = gr.Markdown(words["invitation"], container=True, min_height=44, elem_id="folder-status")
            table = folder_table(rows.functions())
            downloads = gr.File(
                label=words["downloads"],
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_id="folder-downloads",
            )
    start.click(
        runs.run,
        [uploads, folder, model, view],
        Update(status, table, downloads, start, stop),
        show_progress="hidden",
        concurrency_id="folder",
        api_visibility="private",
    )
    stop.click(runs.stop, None, status, **UNQUEUED)
    return runs
