"""One moment that was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nonlocal_video.inference.prediction import printable


@dataclass(frozen=True)
class Hit:
    """A moment of the archive, as like the examples as its score says."""

    rank: int
    """1 is the most alike."""
    path: str
    """Path of its file, as the table has it."""
    start_seconds: float
    """Start, in the player's seconds."""
    end_seconds: float
    """End; the moment is [start, end)."""
    score: float
    """Likeness of its best window, -1 to 1: a cosine less what the whole archive shares."""
    best_seconds: float
    """Middle of its best window, in seconds."""

    def to_row(self) -> dict[str, Any]:
        """Return the hit as in `search --json`."""
        return {
            "rank": self.rank,
            "path": printable(self.path),
            "start_seconds": self.start_seconds,
            "end_seconds": self.end_seconds,
            "score": self.score,
        }
