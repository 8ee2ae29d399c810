"""The web page: Gradio layout, callbacks and server.

Which file draws what:

    page.py                   the frame: title, tabs, theme
    texts.py, sentences.py    the words of Recognise and of the frame
    texts_more.py             the words of Folder, Models and results
    tool_texts.py             the words of Timeline, Search, Teach and Live
    tabs/                     a file a tab; recognise_tab.py is the main flow
    components/intake         where a clip is dropped, pasted, recorded or picked
    components/stage          the answer: headline, how sure, bars, progress; it drops events of earlier runs
    components/player         the player (player.js), its heat (heat.js), its strip and marks (strip.js)
    components/moments_view   the moments of a long clip
    components/keep_bar       link, files and recent results; address.js is the address of the page, gear.js closes
                              settings
    components/drop_zone      what Timeline, Search and Folder begin with; the intake has its look, drop_zone.css
    components/headline       what they do and have found, how far and how long still
    components/sample_row, downloads    the samples below a drop zone, and the files of a run
    components/plain_player, timeline_plot    the player of Timeline and Search, and the curves of Timeline
    components/time_axis      colours, times and ticks of moments_view and timeline_plot
    components/hits           the moments that a search found
    components/teach, live    the tabs Teach and Live; camera opens the browser's camera
    components/*.css          the looks; heat.py packs what the player draws

What happens when somebody acts:

    callbacks/choosing.py     a clip was chosen, or a setting
    callbacks/recognise.py    from a chosen clip to its answer
    callbacks/asking.py       questions of the player
    callbacks/standing.py     how far a run is, for those who wait
    callbacks/moments.py      the moments of a long clip
    callbacks/similar.py      from the player to Search
    callbacks/timeline_*.py, folder_*.py      the tabs Timeline and Folder
    callbacks/search_*.py, teach_run.py       the tabs Search and Teach; what a visitor has there: visit_folders.py
    live_routes.py            what the script of Live asks for
    callbacks/model_list.py, comparing.py     the tab Models
    results/                  kept results: their page at /r/ID, their files, what a reload shows again
    sign_in/                  the page that asks for the password
    visits.py                 whose run is the current one
    api.py                    the endpoints of `gradio_client`
    application.py            the routes and their doors; server.py starts and ends it
    the rest                  limits, login, plain HTTP, clean-up

Gradio takes seconds to import, so both names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .page import build_page as build_page
    from .server import serve as serve

_MODULE_OF_NAME = {"build_page": "page", "serve": "server"}

__all__ = sorted(_MODULE_OF_NAME)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF_NAME[name]}"), name)
