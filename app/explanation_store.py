"""What visitors may ask about: the looks of their last recognitions, within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict

from nonlocal_video.inference.explanation import Explanation

MAX_BYTES = 512 * 1024**2
"""Memory for the explanations of all visitors together."""
UNUSED_SECONDS = 1800
"""After which the page drops a look that was not asked about."""
FRAME_SIDE = 320
"""Longer side of the frames that are kept, in pixels."""


class KeptExplanations:
    """One look for each visitor; when they get too large, those that were unused longest go first.

    Args:
        max_bytes: Of all looks together.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._explanations: OrderedDict[str, Explanation] = OrderedDict()  # the longest unused first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._explanations)

    @property
    def num_bytes(self) -> int:
        """What all looks keep in memory."""
        return sum(explanation.num_bytes for explanation in self._explanations.values())

    def keep(self, visitor: str, explanation: Explanation) -> None:
        """Keep a look for this visitor instead of the one before."""
        explanation = explanation.lightened(FRAME_SIDE)
        with self._lock:
            self._explanations.pop(visitor, None)
            self._explanations[visitor] = explanation
            while self.num_bytes > self.max_bytes:
                self._explanations.popitem(last=False)

    def of(self, visitor: str | None) -> Explanation | None:
        """This visitor's look, if it is still kept."""
        with self._lock:
            if visitor is None or visitor not in self._explanations:
                return None
            self._explanations.move_to_end(visitor)
            return self._explanations[visitor]

    def drop(self, visitor: str | None) -> None:
        """Forget this visitor's look, if there is one."""
        with self._lock:
            self._explanations.pop(visitor or "", None)
