"""Store of the explanations of current runs, for questions, with a memory limit."""

from __future__ import annotations

import threading
from collections import OrderedDict

from nonlocal_video.inference.explanation import Explanation

MAX_BYTES = 512 * 1024**2
"""Memory limit for the explanations of all visitors, in bytes."""
UNUSED_SECONDS = 1800
"""Seconds without a question after which an explanation is dropped."""
FRAME_SIDE = 320
"""Longer side of stored frames, in pixels."""


class ExplanationStore:
    """One explanation per run; above the memory limit, the least recently used ones are dropped."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Make an empty store.

        Args:
            max_bytes: Memory limit for all explanations.
        """
        self.max_bytes = max_bytes
        self._explanations: OrderedDict[str, Explanation] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._explanations)

    @property
    def num_bytes(self) -> int:
        """Size of all explanations in memory, in bytes."""
        return sum(explanation.num_bytes for explanation in self._explanations.values())

    def keep(self, visitor: str, explanation: Explanation) -> None:
        """Store the explanation of a visitor, replacing the previous one."""
        explanation = explanation.lightened(FRAME_SIDE)
        with self._lock:
            self._explanations.pop(visitor, None)
            self._explanations[visitor] = explanation
            while self.num_bytes > self.max_bytes:
                self._explanations.popitem(last=False)

    def of(self, visitor: str | None) -> Explanation | None:
        """Return the explanation of a visitor; None if it is not stored."""
        with self._lock:
            if visitor is None or visitor not in self._explanations:
                return None
            self._explanations.move_to_end(visitor)
            return self._explanations[visitor]

    def drop(self, visitor: str | None) -> None:
        """Drop the explanation of a visitor, if there is one."""
        with self._lock:
            self._explanations.pop(visitor or "", None)
