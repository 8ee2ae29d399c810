"""Layout of the tab for search: clips to search in, an example, and the moments like it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer

from .. import tool_texts as texts
from ..api import LONG, NETWORK
from ..callbacks.search_index import OWN, ROOT, Indexed, reading
from ..callbacks.search_run import Chosen, Found, Searches
from ..components.buttons import UNQUEUED
from ..components.drop_zone import Invitation, drop_zone
from ..components.headline import headline
from ..components.plain_player import plain_player
from ..components.player import script

WORDS = texts.SEARCH
_AT_THE_PLAYERS_TIME = """(seconds, label) => {
    const video = document.querySelector("#search-player video");
    return [video && !video.hidden ? video.currentTime : null, label];
}"""

_WHAT_IS_TICKED = "() => document.querySelector('#search-results ol').dataset.ticked ?? ''"


def search_tab(
    recognizers: Mapping[str, Recognizer], root: Path | None, limits: str, *, max_upload_mb: int
) -> Searches:
    """Lay out the tab and connect its callbacks.

    Args:
        recognizers: Recognizers by model name; the first one searches.
        root: Folder that visitors may search, with its subfolders; None offers none.
        limits: Limits of uploads, in words.
        max_upload_mb: Largest upload, in MB.
    """
    searches = Searches(next(iter(recognizers.values())), root)
    invitation = Invitation(*(WORDS[name] for name in Invitation._fields))
    with gr.Column(elem_id="search", elem_classes="tool-flow"):
        clips = drop_zone(
            invitation, elem_id="search-clips", max_upload_mb=max_upload_mb, multiple=True, more=_folder_of(root)
        )
        label = _settings(searches, limits)
        with gr.Column(elem_id="search-result", elem_classes="tool-result"):
            said = headline(elem_id="search-said")
            with gr.Column(visible=False, elem_id="search-pick") as pick:
                example = gr.Dropdown([], label=WORDS["example"], elem_id="search-example")
                upload = drop_zone(
                    Invitation("", WORDS["upload"], WORDS["choose_example"], ""),
                    elem_id="search-upload",
                    max_upload_mb=max_upload_mb,
                    whole_tab=False,
                )
            with gr.Column(elem_id="search-play"):
                player = plain_player(elem_id="search-player")
                with gr.Row(visible=False, elem_id="search-like") as buttons:
                    moment = gr.Button(WORDS["moment"], variant="primary", elem_id="search-moment")
                    whole = gr.Button(WORDS["whole"], elem_id="search-whole")
            found = Found(said, *_results())
    chosen = Chosen(said, player, buttons)
    _listen(searches, clips, Indexed(said, example, pick))
    said.stop(searches.stop, None, None, **UNQUEUED)
    example.input(searches.choose, example, chosen, trigger_mode="multiple", **UNQUEUED)
    upload.chosen(searches.choose_upload, None, chosen, trigger_mode="multiple", **UNQUEUED)
    ticked, seconds = gr.Textbox("", visible=False), gr.Number(visible=False)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    how = quiet | {"concurrency_id": NETWORK, "trigger_mode": "multiple"}
    for asked in (
        moment.click(searches.like_moment, [seconds, label], found, js=_AT_THE_PLAYERS_TIME, **how),
        whole.click(searches.like_whole, label, found, **how),
        found.results.more(searches.like_hit, label, found, **how),
    ):
        # They need no network, and others wait for it.
        asked.then(searches.previews, None, found.results, concurrency_id="previews", trigger_mode="multiple", **quiet)
    found.save.click(
        searches.save, ticked, found.saved, js=_WHAT_IS_TICKED, concurrency_id=LONG, api_visibility="private"
    )
    return searches


def _folder_of(root: Path | None) -> str:
    """Return the HTML that offers the folder of the server; nothing without one."""
    if root is None:
        return ""
    words = html.escape(WORDS["root"]), html.escape(WORDS["index"].format(name=root.name))
    return f'<div class="server"><span>{words[0]}</span><button type="button" data-take>{words[1]}</button></div>'


def _settings(searches: Searches, limits: str) -> gr.Dropdown:
    """Lay out what is behind the gear."""
    with gr.Accordion(texts.FLOW_SETTINGS, open=False, elem_id="search-settings", elem_classes="tab-settings"):
        label = gr.Dropdown(
            [(WORDS["label_hint"], ""), *searches.recognizer.labels],
            value="",
            label=WORDS["label"],
            elem_id="search-label",
        )
        gr.Markdown(limits, elem_id="search-limits", elem_classes="small-print")
    return label


def _results() -> tuple[gr.HTML, gr.Button, gr.File]:
    results = gr.HTML(
        "[]",
        html_template="<ol></ol>",
        js_on_load=script("hits"),
        apply_default_css=False,
        words=WORDS,
        elem_id="search-results",
        elem_classes="bare",
    )
    save = gr.Button(WORDS["save"], visible=False, elem_id="search-save")
    saved = gr.File(
        label=WORDS["saved"], interactive=False, visible=False, elem_id="search-saved", elem_classes="tool-downloads"
    )
    return results, save, saved


def _listen(searches: Searches, clips: gr.HTML, indexed: Indexed) -> None:
    """Look through clips as soon as some are dropped, or the folder of the server is chosen."""

    def index(event: gr.EventData, request: gr.Request) -> Any:
        chosen = event._data
        yield from searches.index(ROOT if "folder" in chosen else OWN, chosen.get("paths"), request)

    clips.chosen(reading, None, indexed.said, trigger_mode="multiple", **UNQUEUED)
    clips.chosen(
        index,
        None,
        indexed,
        show_progress="hidden",
        concurrency_id=LONG,
        api_visibility="private",
        trigger_mode="multiple",
    )
