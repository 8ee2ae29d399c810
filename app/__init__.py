"""The web page: Gradio layout, callbacks and server.

Which file draws what:

    page.py                   the frame: title, tabs, theme
    texts.py, tool_texts.py   every word on the page; the second those of Search, Teach and Live
    tabs/recognise_tab.py     Recognise: intake, answer, player, moments of a long clip
    tabs/timeline_tab.py      Timeline: a long video with a choice of windows
    tabs/search_tab.py        Search: more moments like one; their cards in components/hits.js
    tabs/teach_tab.py         Teach: one's own actions; drawn by components/teach.js
    tabs/live_tab.py          Live: the camera, continuously; drawn by components/live.js, which talks to live_routes.py
    tabs/folder_tab.py        Folder: many clips, one table
    tabs/api_tab.py           API: the program to copy
    components/               what several tabs draw: player, plot, buttons, samples; JavaScript and CSS beside them
    callbacks/                what happens when somebody acts; no layout
    api.py                    the endpoints of `gradio_client`
    server.py and the rest    the server: limits, login, plain HTTP, clean-up

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
