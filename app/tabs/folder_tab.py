"""Layout of the tab for many clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer

from ..callbacks.folder_run import HEADERS, FolderRuns, Update
from ..choices import view_choices
from ..components.buttons import UNQUEUED, start_and_cancel

INVITATION = "**Choose some clips.** Every file gets a row, those that cannot be read too."


def folder_tab(recognizers: Mapping[str, Recognizer], root: Path | None, limits: str) -> FolderRuns:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name; the first is the default.
        root: Folder that visitors may classify, with its subfolders; None offers none.
        limits: Limits of uploads, in words.
    """
    runs = FolderRuns(recognizers, root)
    first = next(iter(recognizers.values()))
    views = view_choices(first.card)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            uploads = gr.File(label="Several videos", file_count="multiple", height=200, elem_id="files")
            folder = gr.Textbox(
                label="Or a folder on the server",
                info=f"Below {root.name}: its name, or . for everything." if root else None,
                visible=root is not None,
                elem_id="folder-name",
            )
            start, stop = start_and_cancel(
                ("Classify all", "Stop"),
                elem_ids=("folder-start", "folder-stop"),
                answers_in="folder-status",
                ready=True,
            )
            gr.Markdown(limits, elem_id="folder-limits", elem_classes="small-print")
            view = gr.Radio(views, value=views[0][1], label="How closely to look", elem_id="folder-views")
            model = gr.Dropdown(
                list(recognizers),
                value=first.card.name,
                label="Model",
                visible=len(recognizers) > 1,
                elem_id="folder-model",
            )
        with gr.Column(scale=3, min_width=320):
            status = gr.Markdown(INVITATION, container=True, min_height=60, elem_id="folder-status")
            table = gr.Dataframe(
                headers=HEADERS,
                datatype=["str", "str", "number", "str"],
                column_widths=["200px", "170px", "80px", "250px"],
                value=[],
                interactive=False,
                wrap=True,
                max_height=480,
                visible=False,
                label="Actions",
                elem_id="folder-table",
            )
            downloads = gr.File(
                label="The whole table",
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_id="folder-downloads",
            )
    start.click(
        runs.run,
        [uploads, folder, model, view],
        Update(status, table, downloads, start, stop),
        show_progress_on=status,
        show_progress="minimal",
        concurrency_id="folder",
        api_visibility="private",
    )
    stop.click(runs.stop, None, status, **UNQUEUED)
    return runs
