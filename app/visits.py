"""Current run of every visitor, with an identity that all its events carry.

A new clip, other settings or a stop end a run; what it still says is dropped, here and in the browser.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nonlocal_video.inference.recognizer import Stage
from nonlocal_video.inference.timeline import Timeline

from .choices import ONE_VIEW

FIRST_GUESS_SECONDS: Mapping[Stage, float] = {"reading": 1.0, "network": 3.0}
"""Expected seconds of a stage before one was timed."""
JOIN_SECONDS = 10.0
"""Time in which a page queues the run of its choice. One that has not come then counts no more: its page is gone."""
LATE_SECONDS = 2.0
"""A choice that comes within this time after its page has closed was on its way then. A browser that only lost its
connection takes longer to come back."""


@dataclass(frozen=True)
class How:
    """Settings of a run."""

    model: str
    views: str = ONE_VIEW
    region: str = ""
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass(eq=False)
class Run:
    """One clip of one visitor, with the settings it is looked at with."""

    identity: str
    """Number and secret; anyone who has it may ask about the run."""
    number: int
    session: str
    path: Path
    name: str
    """Name of the clip, for the visitor."""
    how: How
    choice: int = 0
    """Number of the choice in the visitor's browser, which drops what belongs to an earlier one."""
    is_started: bool = False
    is_stopped: bool = False
    is_ended: bool = False
    stage: Stage = "reading"
    stage_began: float = field(default_factory=time.monotonic)
    timeline: Timeline | None = None
    """The clip's windows so far, if it is longer than one view."""
    last_event: dict[str, Any] | None = None
    """The last thing that was said of it, for a browser that has not heard it."""


class Visits:
    """The current run of every visitor, in the order in which they came."""

    def __init__(
        self,
        on_end: Callable[[str], None] = lambda identity: None,
        queued: Callable[[], Collection[str]] = lambda: (),
    ) -> None:
        """Make an empty store.

        Args:
            on_end: Called with the identity of each run that is no longer anybody's current one.
            queued: Returns the sessions whose runs are queued.
        """
        self._on_end, self._queued = on_end, queued
        self._runs: dict[str, Run] = {}
        self._numbers = itertools.count(1)
        self._closed: dict[str, float] = {}
        self._pace: dict[tuple[str, str, Stage], float] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def waiting(self) -> int:
        """Number of runs that have not begun."""
        with self._lock:
            return len(self._waiting())

    def begin(self, session: str, path: Path, name: str, how: How, choice: int) -> Run | None:
        """Make a visitor's new current run; the one before ends. None if a later choice has already come.

        None also if the page has just closed: nobody would claim the run, and it would count as waiting for ever.
        """
        with self._lock:
            self._drop_old_closings()
            if session in self._closed:
                return None
            before = self._runs.get(session)
            if before is not None and before.choice > choice:
                return None
            self.leave(session)
            number = next(self._numbers)
            run = Run(f"{number}.{secrets.token_urlsafe(16)}", number, session, path, name, how, choice)
            self._runs[session] = run
            return run

    def claim(self, session: str) -> Run | None:
        """Return the visitor's current run to the one caller that is to do it; None if there is nothing to do."""
        with self._lock:
            run = self._runs.get(session)
            if run is None or run.is_started or run.is_stopped:
                return None
            run.is_started = True
            self.enter(run, "reading")
            return run

    def current(self, session: str) -> Run | None:
        """Return the visitor's current run."""
        return self._runs.get(session)

    def of(self, identity: object) -> Run | None:
        """Return the run with this identity if it is still its visitor's current one."""
        with self._lock:
            return next((run for run in self._runs.values() if run.identity == identity), None)

    def is_wanted(self, run: Run) -> bool:
        """Return whether a run is still current and was not stopped."""
        return self._runs.get(run.session) is run and not run.is_stopped

    def stop(self, identity: object) -> None:
        """Stop a run; it stays the current one, with what it has shown."""
        if (run := self.of(identity)) is not None:
            run.is_stopped = True

    def close(self, session: str) -> None:
        """Forget a visitor whose page has closed; a choice that is still on its way begins nothing."""
        with self._lock:
            self._drop_old_closings()
            self._closed[session] = time.monotonic()
            self.leave(session)

    def leave(self, session: str) -> None:
        """Forget a visitor."""
        with self._lock:
            run = self._runs.pop(session, None)
        if run is not None:
            run.is_stopped = True
            self._on_end(run.identity)

    def enter(self, run: Run, stage: Stage) -> None:
        """Note that a stage of a run begins now, and how long the one before took."""
        if stage != run.stage:
            self._note_pace(run)
        run.stage, run.stage_began = stage, time.monotonic()

    def end(self, run: Run) -> None:
        """Note that the network has answered."""
        self._note_pace(run)
        run.is_ended = True

    def expected_seconds(self, how: How, stage: Stage) -> float:
        """Return how long a stage is expected to take with these settings."""
        return self._pace.get((how.model, how.views, stage), FIRST_GUESS_SECONDS[stage])

    def ahead_of(self, run: Run) -> list[Run]:
        """Return the runs that are answered before this one."""
        with self._lock:
            begun = [other for other in self._runs.values() if other.is_started]
            return [
                other
                for other in [*begun, *self._waiting()]
                if other.number < run.number and not (other.is_stopped or other.is_ended)
            ]

    def _waiting(self) -> list[Run]:
        """Return the runs that have not begun and will: they are queued, or may still come."""
        queued, now = self._queued(), time.monotonic()
        return [
            run
            for run in self._runs.values()
            if not (run.is_started or run.is_stopped)
            and (run.session in queued or now - run.stage_began < JOIN_SECONDS)
        ]

    def _drop_old_closings(self) -> None:
        now = time.monotonic()
        self._closed = {session: at for session, at in self._closed.items() if now - at < LATE_SECONDS}

    def _note_pace(self, run: Run) -> None:
        key, took = (run.how.model, run.how.views, run.stage), time.monotonic() - run.stage_began
        before = self._pace.get(key)
        self._pace[key] = took if before is None else (before + took) / 2
