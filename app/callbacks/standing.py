"""Progress of a visitor's run: the answer to the page's question while somebody waits."""

from __future__ import annotations

import time
from typing import Any

from ..visits import Run, Visits


def standing(visits: Visits, identity: str) -> dict[str, Any]:
    """Return how far a run is, and the seconds until its answer.

    Returns:
        `state` is "gone", "ahead" (with `count` clips before it), or the stage it is in. `seconds` is the expected time
        until its own answer, and `done` the share of the whole time that is over, from 0 to 1. Once it was answered,
        `said` is True.
    """
    run = visits.of(identity)
    if run is None:
        return {"state": "gone"}
    if run.last_event is not None:
        return {"state": run.stage, "said": True}
    if run.is_started:
        left = _left(visits, run)
        return {"state": run.stage, "seconds": round(left), "done": round(1 - min(left / _whole(visits, run), 1.0), 3)}
    ahead = visits.ahead_of(run)
    left = _whole(visits, run) + sum(_left(visits, one) if one.is_started else _whole(visits, one) for one in ahead)
    waited = time.monotonic() - run.stage_began
    return {"state": "ahead", "count": len(ahead), "seconds": round(left), "done": round(waited / (waited + left), 3)}


def _whole(visits: Visits, run: Run) -> float:
    return visits.expected_seconds(run.how, "reading") + visits.expected_seconds(run.how, "network")


def _left(visits: Visits, run: Run) -> float:
    """Return the expected seconds that a run that has begun still takes."""
    later = visits.expected_seconds(run.how, "network") if run.stage == "reading" else 0.0
    return max(visits.expected_seconds(run.how, run.stage) - (time.monotonic() - run.stage_began), 0.0) + later
