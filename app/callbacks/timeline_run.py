"""Callbacks of the timeline tab: the growing timeline of a long video, until it ends or is cancelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.errors import VideoError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.inference.timeline_files import write_timeline

from ..components.timeline_plot import plotted
from ..messages import GONE, plain_errors, refusal
from .timeline_updates import timeline_updates, window_settings
from .timeline_words import SHOWN_ROWS, progress_of, row_of, summary_of

HEADERS = ["Start", "End", "Action", "Score"]
DOWNLOADS = (".json", ".csv", ".vtt")
UPDATE_SECONDS = 1.0
MAX_UNFINISHED = 8
"""Maximum number of stored timelines of unfinished runs; one runs at a time, and other visitors have left."""
INVITATION = """**Choose a video, then press Start.** While it is looked at you will see

- the scores of the likeliest actions over time,
- the segments: what happens from when to when.

A click on either goes to that place of the video."""
NO_FILES = gr.update(value=None, visible=False)
CHOOSE = "Choose a video first."
NOTHING_YET = "Cancelled before the first window was done."


class Update(NamedTuple):
    """Updates of the components, in the order in which the page lists its outputs."""

    status: Any
    results: Any
    plot: Any
    table: Any
    downloads: Any


class Rule(NamedTuple):
    """Rule for segments; see `Timeline.segments`."""

    threshold: float
    min_seconds: float


@dataclass(frozen=True)
class TimelineRuns:
    """Callbacks of the timeline tab."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name."""
    running: dict[str, object] = field(default_factory=dict)
    """Identity of each visitor's run in progress; a run that finds another one there says nothing more."""
    waiting: Counter[str] = field(default_factory=Counter)
    """Number of presses of each visitor whose run has not begun."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of each visitor's waiting runs that were cancelled."""
    cancelled: dict[str, tuple[Timeline, Rule]] = field(default_factory=dict)
    """Timeline on the page for each visitor's cancelled run that still has to end."""
    unfinished: dict[str, tuple[Timeline, Rule]] = field(default_factory=dict)
    """Timeline on the page for each visitor's run in progress; a cancelled run is written from it."""

    def is_running(self, request: gr.Request) -> bool:
        """Return whether this visitor's run is in progress."""
        return request.session_hash in self.running or self.waiting[request.session_hash or ""] > 0

    def press(self, request: gr.Request) -> None:
        """Note that a run will come when it is its turn."""
        self.waiting[request.session_hash or ""] += 1

    def run(
        self,
        clip: str | None,
        model: str,
        window: str,
        stride: float,
        threshold: float,
        min_seconds: float,
        request: gr.Request,
    ) -> Iterator[Update]:
        """Yield the growing timeline, then the files to download."""
        visitor = request.session_hash or ""
        if self.skipped[visitor]:
            self.skipped.subtract([visitor])
            return
        self.waiting[visitor] = max(self.waiting[visitor] - 1, 0)
        if clip is None:
            raise refusal(CHOOSE)
        path, rule = Path(clip), Rule(threshold, min_seconds)
        identity = self.running[visitor] = object()
        try:
            with plain_errors(path.parent):
                if not path.is_file():
                    raise VideoError("not_found", GONE)
                yield reading(path.name)
                recognizer = self.recognizers[model]
                settings = window_settings(recognizer, path, window, stride)
                with closing(timeline_updates(recognizer, path, update_seconds=UPDATE_SECONDS, **settings)) as steps:
                    for timeline in steps:
                        if self.running.get(visitor) is not identity:
                            # Said again: `cancel` may have overtaken an update on its way to the page.
                            if (found := self.cancelled.pop(visitor, None)) is not None:
                                yield from _ended(*found, "Cancelled.")
                            return
                        if timeline.is_complete or timeline.error:
                            break
                        self._store(visitor, timeline, rule)
                        yield _shown(timeline, rule, progress_of(timeline))
                self.unfinished.pop(visitor, None)
                yield from _ended(timeline, rule, "Done." if timeline.is_complete else "The video broke off.")
        finally:
            self.cancelled.pop(visitor, None)
            if self.running.get(visitor) is identity:
                del self.running[visitor]

    def cancel(self, request: gr.Request) -> Iterator[Update]:
        """End this visitor's run, and yield its timeline so far."""
        unfinished = self._end(request)
        if unfinished is None:
            yield _nothing(NOTHING_YET)
        else:
            self.cancelled[request.session_hash or ""] = unfinished
            yield from _ended(*unfinished, "Cancelled.")

    def choose(self, request: gr.Request) -> Update:
        """Clear the last timeline when another video is chosen."""
        self.leave(request)
        return _nothing(INVITATION)

    def leave(self, request: gr.Request) -> None:
        """End the run of a visitor who closed the page."""
        self._end(request)

    def _end(self, request: gr.Request) -> tuple[Timeline, Rule] | None:
        """End a visitor's runs, those that wait too; return what the one in progress has shown."""
        visitor = request.session_hash or ""
        self.running.pop(visitor, None)
        self.cancelled.pop(visitor, None)
        if waiting := self.waiting.pop(visitor, 0):
            self.skipped[visitor] += waiting
        return self.unfinished.pop(visitor, None)

    def _store(self, visitor: str, timeline: Timeline, rule: Rule) -> None:
        self.unfinished[visitor] = timeline, rule
        while len(self.unfinished) > MAX_UNFINISHED:
            del self.unfinished[next(iter(self.unfinished))]


def reading(name: str) -> Update:
    """Return what is shown until the first window is done."""
    return _nothing(f"Reading {name}, and looking at its first moments.")


def _nothing(words: str) -> Update:
    return Update(words, gr.update(visible=False), None, [], NO_FILES)


def _shown(timeline: Timeline, rule: Rule, status: str) -> Update:
    segments = timeline.segments(threshold=rule.threshold, min_seconds=rule.min_seconds)
    return Update(
        status=status,
        results=gr.update(visible=True),
        plot=plotted(timeline, segments),
        table=[row_of(segment) for segment in segments[:SHOWN_ROWS]],
        downloads=NO_FILES,
    )


def _ended(timeline: Timeline, rule: Rule, how: str) -> Iterator[Update]:
    if not timeline.is_complete and timeline.error is None:
        timeline = timeline.in_context(timeline.context)  # each window so far drew on those before it alone
    with TemporaryDirectory() as folder:
        # Gradio copies the files before it resumes this generator, which deletes the folder.
        files = [
            write_timeline(
                Path(folder) / f"{Path(timeline.path).stem}{suffix}",
                timeline,
                threshold=rule.threshold,
                min_seconds=rule.min_seconds,
            )
            for suffix in DOWNLOADS
        ]
        segments = timeline.segments(threshold=rule.threshold, min_seconds=rule.min_seconds)
        shown = _shown(timeline, rule, f"{how} {summary_of(timeline, len(segments))}")
        yield shown._replace(downloads=gr.update(value=[str(file) for file in files], visible=True))
