"""Find more moments like the one in the player, in the Search tab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from .. import texts_more as texts
from ..components.headline import DONE, WORKING, said
from ..messages import GONE, refusal
from ..visit_folders import address_of
from .recognise import Recognition
from .search_index import ROOT
from .search_run import Searches


class Opened(NamedTuple):
    """Updates when Search opens."""

    tabs: Any
    said: Any
    player: Any
    buttons: Any
    example: Any
    results: Any


class Searched(NamedTuple):
    """Updates while the moments are searched for."""

    said: Any = gr.skip()
    example: Any = gr.skip()
    pick: Any = gr.skip()
    results: Any = gr.skip()
    save: Any = gr.skip()
    saved: Any = gr.skip()


OPENED = Opened("tabs", "search-said", "search-player", "search-like", "search-example", "search-results")
SEARCHED = Searched(
    said="search-said",
    example="search-example",
    pick="search-pick",
    results="search-results",
    save="search-save",
    saved="search-saved",
)
"""Elements of the components that are updated, as the layout of the page and of Search names them."""


@dataclass(frozen=True)
class Similar:
    """Callbacks of the button below an answer: the first one answers at once, the second one takes its time."""

    recognition: Recognition
    """Runs of all visitors."""
    searches: Searches
    """Callbacks of Search."""

    def open(self, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        """Open Search with the visitor's clip as the example; the last value is the time to search for, in seconds."""
        asked = event._data
        run = self.recognition.visits.of(asked["run"])
        if run is None or run.session != request.session_hash or not run.path.is_file():
            raise refusal(GONE)
        self.searches.visits.of(request).example = run.path
        opened = Opened(
            tabs=gr.Tabs(selected="search"),
            said=said(WORKING, texts.KEEP["similar_looking"], can_stop=False),
            player=address_of(run.path),
            buttons=gr.update(visible=True),
            example=gr.update(value=None),
            results="[]",
        )
        return (*opened, float(asked["seconds"]))

    def find(self, seconds: float, request: gr.Request) -> Iterator[Searched]:
        """Search for moments like the one at a time of the example.

        An offered folder that was not looked through is looked through first. Without one, the visitor is asked for the
        clips to search in.
        """
        visit = self.searches.visits.of(request)
        example = visit.example
        if visit.table is None and self.searches.root is not None:
            for indexed in self.searches.index(ROOT, None, request):
                yield Searched(*indexed)
        if visit.table is None:
            yield Searched(said(DONE, texts.KEEP["similar_where"], texts.KEEP["similar_then"]))
        elif visit.example == example:  # else the visitor has chosen another one meanwhile
            for found in self.searches.like_moment(seconds, "", request):
                yield Searched(found.said, results=found.results, save=found.save, saved=found.saved)
            for results in self.searches.previews(request):
                yield Searched(results=results)
