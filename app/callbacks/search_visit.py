"""State of a visitor's search."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nonlocal_video.retrieval.hit import Hit

MOST_SEARCHES = 8
"""Most searches of a visitor whose moments are known."""


@dataclass
class SearchVisit:
    """State of a visitor's search: the archive, the example and the results."""

    folder: Path
    table: Path | None = None
    names: dict[str, Path] = field(default_factory=dict)
    """Files of the index by the name that is shown."""
    example: Path | None = None
    hits: tuple[Hit, ...] = ()
    """The moments that were found last."""
    found: dict[int, tuple[Hit, ...]] = field(default_factory=dict)
    """The moments of the last searches by their number: a press may wait while others are found."""
    number: int = 0
    """Number of the last search."""
    stop: threading.Event = field(default_factory=threading.Event)
    shown: object = None
    """Identity of what the headline is about."""

    def begin(self) -> Callable[[], bool]:
        """Begin what is shown from now on; the function returned says whether it still is, or something later."""
        mine = self.shown = object()
        return lambda: self.shown is mine

    def keep(self, hits: tuple[Hit, ...]) -> None:
        """Keep what a search found; the same moments again keep their number, and what is ticked of them."""
        self.number += hits != self.hits or not self.found
        self.hits = self.found[self.number] = hits
        for old in sorted(self.found)[:-MOST_SEARCHES]:
            del self.found[old]
