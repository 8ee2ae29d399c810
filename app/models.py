"""The models that visitors may choose: those of the server, and those that a visitor has taught here."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from nonlocal_video.inference.recognizer import Recognizer

MAX_TAUGHT = 8
"""Most taught models in memory, 60 MB each of the default; the ones that were not used for the longest time go."""


class Models(Mapping[str, Recognizer]):
    """Recognizers by name. A taught one has an unguessable name, is not listed, and is gone after a while."""

    def __init__(self, recognizers: Sequence[Recognizer]) -> None:
        """Begin with the server's own.

        Args:
            recognizers: At least one; the first is the default.
        """
        self._own = {recognizer.card.name: recognizer for recognizer in recognizers}
        self._taught: OrderedDict[str, Recognizer] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Recognizer:
        with self._lock:
            if name in self._taught:
                self._taught.move_to_end(name)
                return self._taught[name]
        return self._own[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)

    def add_taught(self, recognizer: Recognizer) -> str:
        """Offer a taught model under a name of its own, which is returned."""
        name = f"taught-{secrets.token_urlsafe(12)}"
        with self._lock:
            self._taught[name] = recognizer
            gone = [self._taught.popitem(last=False)[1] for _ in range(len(self._taught) - MAX_TAUGHT)]
        for old in gone:
            old.close()
        return name

    def drop_taught(self, name: str | None) -> None:
        """Forget a taught model, if it is known."""
        with self._lock:
            recognizer = self._taught.pop(name or "", None)
        if recognizer is not None:
            recognizer.close()
