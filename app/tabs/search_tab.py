"""Layout of the tab for search: clips to search in, an example, and the moments like it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer

from .. import tool_texts as texts
from ..api import LONG, NETWORK
from ..callbacks.search_index import OWN, ROOT, Indexed
from ..callbacks.search_run import Found, Searches
from ..components.buttons import UNQUEUED
from ..components.plain_player import player_of
from ..components.player import script

WORDS = texts.SEARCH
_AT_THE_PLAYERS_TIME = """(seconds, label) => {
    const video = document.querySelector("#search-player video");
    return [video && video.videoWidth ? video.currentTime : null, label];
}"""


def search_tab(recognizers: Mapping[str, Recognizer], root: Path | None, limits: str) -> Searches:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name; the first one searches.
        root: Folder that visitors may search, with its subfolders; None offers none.
        limits: Limits of uploads, in words.
    """
    searches = Searches(next(iter(recognizers.values())), root)
    where, uploads, start, stop = _source(root, limits)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            status = gr.Markdown(WORDS["invitation"], container=True, elem_id="search-status")
            example = gr.Dropdown([], label=WORDS["example"], elem_id="search-example")
            upload = gr.File(label=WORDS["upload"], height=140, elem_id="search-upload")
        with gr.Column(scale=3, min_width=320):
            player = player_of(upload, elem_id="search-player")
            with gr.Row():
                moment = gr.Button(WORDS["moment"], variant="primary", elem_id="search-moment")
                whole = gr.Button(WORDS["whole"], elem_id="search-whole")
            label = gr.Dropdown(
                [(WORDS["label_hint"], ""), *searches.recognizer.labels],
                value="",
                label=WORDS["label"],
                elem_id="search-label",
            )
    found = Found(gr.Markdown("", elem_id="search-found"), *_results())
    ticked, seconds = gr.Textbox("[]", visible=False), gr.Number(visible=False)
    _listen(searches, (where, uploads, start, stop), Indexed(status, example, start, stop))
    example.input(searches.choose, example, player, **UNQUEUED)
    upload.change(searches.choose_upload, upload, None, **UNQUEUED)
    how: dict[str, Any] = {"show_progress_on": found.status, "concurrency_id": NETWORK, "api_visibility": "private"}
    moment.click(searches.like_moment, [seconds, label], found, js=_AT_THE_PLAYERS_TIME, **how)
    whole.click(searches.like_whole, label, found, **how)
    found.results.more(searches.like_hit, label, found, **how)
    found.results.ticked(_ticked, None, ticked, **UNQUEUED)
    found.save.click(searches.save, ticked, found.saved, concurrency_id=LONG, api_visibility="private")
    return searches


def _source(root: Path | None, limits: str) -> tuple[gr.Radio, gr.File, gr.Button, gr.Button]:
    """Lay out what is searched."""
    choices = [(WORDS["root"].format(name=root.name), ROOT)] if root else []
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            where = gr.Radio(
                [*choices, (WORDS["own"], OWN)],
                value=choices[0][1] if root else OWN,
                label=WORDS["where"],
                visible=root is not None,
                elem_id="search-where",
            )
            with gr.Row():
                start = gr.Button(WORDS["index"], visible=root is not None, elem_id="search-index")
                stop = gr.Button(WORDS["stop"], interactive=False, elem_id="search-stop")
        with gr.Column(scale=3, min_width=320):
            uploads = gr.File(
                label=WORDS["clips"],
                file_count="multiple",
                height=140,
                visible=root is None,
                elem_id="search-clips",
            )
            gr.Markdown(limits, elem_id="search-limits", elem_classes="small-print")
    return where, uploads, start, stop


def _results() -> tuple[gr.HTML, gr.Button, gr.File]:
    results = gr.HTML(
        "[]",
        html_template="<ol></ol>",
        js_on_load=script("hits"),
        apply_default_css=False,
        words=WORDS,
        elem_id="search-results",
    )
    save = gr.Button(WORDS["save"], visible=False, elem_id="search-save")
    saved = gr.File(label=WORDS["saved"], interactive=False, visible=False, elem_id="search-saved")
    return results, save, saved


def _listen(searches: Searches, source: tuple[gr.Radio, gr.File, gr.Button, gr.Button], indexed: Indexed) -> None:
    """Look through clips when some are dropped, or at the press of the button."""
    where, uploads, start, stop = source
    how: dict[str, Any] = {"show_progress": "hidden", "concurrency_id": LONG, "api_visibility": "private"}
    for begins in (start.click, uploads.upload):
        begins(searches.index, [where, uploads], indexed, **how)
    stop.click(searches.stop, None, None, **UNQUEUED)
    where.change(
        lambda chosen: [gr.update(visible=chosen == OWN), gr.update(visible=chosen == ROOT)],
        where,
        [uploads, start],
        **UNQUEUED,
    )


def _ticked(event: gr.EventData) -> str:
    return str(event._data)
