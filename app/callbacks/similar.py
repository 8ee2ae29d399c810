"""From the player to Search: more moments like the one that is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from .. import texts_more as texts
from ..messages import GONE, refusal
from ..visit_folders import address_of
from .recognise import Recognition
from .search_index import ROOT, Indexed
from .search_run import Found, Searches


class Shown(NamedTuple):
    """Updates of the components of Search, by the names in `IDS`."""

    tabs: Any = gr.skip()
    player: Any = gr.skip()
    status: Any = gr.skip()
    example: Any = gr.skip()
    start: Any = gr.skip()
    stop: Any = gr.skip()
    found: Any = gr.skip()
    results: Any = gr.skip()
    save: Any = gr.skip()
    saved: Any = gr.skip()


IDS = Shown(
    tabs="tabs",
    player="search-player",
    status="search-status",
    example="search-example",
    start="search-index",
    stop="search-stop",
    found="search-found",
    results="search-results",
    save="search-save",
    saved="search-saved",
)
"""Elements of the components, as their layout names them."""


@dataclass(frozen=True)
class Similar:
    """The callback of the button below an answer."""

    recognition: Recognition
    """Runs of all visitors."""
    searches: Searches
    """Callbacks of Search."""

    def find(self, request: gr.Request, event: gr.EventData) -> Iterator[Shown]:
        """Open Search with the visitor's clip as the example, and search for moments like the one at the given time.

        An offered folder that was not looked through is looked through first. Without one, the visitor is asked for the
        clips to search in.
        """
        asked = event._data
        run = self.recognition.visits.of(asked["run"])
        if run is None or run.session != request.session_hash or not run.path.is_file():
            raise refusal(GONE)
        visit = self.searches.visits.of(request)
        visit.example = run.path
        opened = gr.Tabs(selected="search")
        yield Shown(tabs=opened, player=address_of(run.path), example=gr.update(value=None), results="[]", found="")
        if visit.table is None and self.searches.root is not None:
            for indexed in self.searches.index(ROOT, None, request):
                yield _looking(indexed)
            visit.example = run.path
        if visit.table is None:
            yield Shown(found=texts.KEEP["similar_where"])
            return
        for found in self.searches.like_moment(float(asked["seconds"]), "", request):
            yield _found(found)


def _looking(indexed: Indexed) -> Shown:
    return Shown(status=indexed.status, example=indexed.example, start=indexed.start, stop=indexed.stop)


def _found(found: Found) -> Shown:
    return Shown(found=found.status, results=found.results, save=found.save, saved=found.saved)
