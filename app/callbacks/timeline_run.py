"""Callbacks of the timeline tab: the growing timeline of a long video, until it ends or is stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.inference.timeline_files import write_timeline

from ..components.headline import NO_FILES, STOPPED, WORKING, failed, said
from ..components.timeline_plot import plotted
from ..messages import GONE
from ..tool_texts import TIMELINE as WORDS
from ..visit_folders import address_of, uploaded
from .timeline_updates import timeline_updates, window_settings
from .timeline_words import progress_of, summary_of

DOWNLOADS = (".json", ".csv", ".vtt")
UPDATE_SECONDS = 1.0
MAX_UNFINISHED = 8
"""Maximum number of stored timelines of unfinished runs; one runs at a time, and other visitors have left."""


class Update(NamedTuple):
    """Updates of the components, in the order in which the page lists its outputs."""

    said: Any
    plot: Any
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
    samples: Sequence[Path] = ()
    """Sample clips, by their number on the page."""
    clips: dict[str, Path] = field(default_factory=dict)
    """The video that each visitor has chosen."""
    running: dict[str, object] = field(default_factory=dict)
    """Identity of each visitor's run in progress; a run that finds another one there says nothing more."""
    waiting: Counter[str] = field(default_factory=Counter)
    """Number of each visitor's runs that have not begun."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of each visitor's waiting runs that were stopped."""
    cancelled: dict[str, tuple[Timeline, Rule]] = field(default_factory=dict)
    """Timeline on the page for each visitor's stopped run that still has to end."""
    unfinished: dict[str, tuple[Timeline, Rule]] = field(default_factory=dict)
    """Timeline on the page for each visitor's run in progress; a stopped run is written from it."""

    def is_running(self, request: gr.Request) -> bool:
        """Return whether this visitor's run is in progress."""
        return request.session_hash in self.running or self.waiting[request.session_hash or ""] > 0

    def choose(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Take another video in place of the last one; `run` follows. Returns an update, and the player's address."""
        visitor, chosen = request.session_hash or "", event._data
        self._end(request)
        self.clips.pop(visitor, None)
        try:
            if "sample" in chosen:
                clip = self.samples[int(chosen["sample"])]
            else:
                (clip,) = map(uploaded, chosen["paths"])
        except UsageError as error:
            return *_nothing(failed(error, Path())), ""
        self.clips[visitor] = clip
        return *self.again(request), address_of(clip)

    def again(self, request: gr.Request) -> Update:
        """Note that a run of the video that was chosen comes when it is its turn."""
        visitor = request.session_hash or ""
        if (clip := self.clips.get(visitor)) is None:
            return _nothing(failed(VideoError("not_found", GONE), Path()))
        self.waiting[visitor] += 1
        return _nothing(said(WORKING, WORDS["reading"].format(name=clip.name), WORDS["first"]))

    def run(
        self, model: str, window: str, stride: float, threshold: float, min_seconds: float, request: gr.Request
    ) -> Iterator[Update]:
        """Yield the growing timeline, then the files to download."""
        visitor = request.session_hash or ""
        if self.skipped[visitor]:
            self.skipped.subtract([visitor])
            return
        self.waiting[visitor] = max(self.waiting[visitor] - 1, 0)
        if (path := self.clips.get(visitor)) is None:  # it could not be taken, and the page says so
            del self.waiting[visitor]
            return
        rule, identity = Rule(threshold, min_seconds), object()
        self.running[visitor] = identity
        try:
            if not path.is_file():
                raise VideoError("not_found", GONE)
            recognizer = self.recognizers[model]
            settings = window_settings(recognizer, path, window, stride)
            with closing(timeline_updates(recognizer, path, update_seconds=UPDATE_SECONDS, **settings)) as steps:
                for timeline in steps:
                    if self.running.get(visitor) is not identity:
                        # Said again: `cancel` may have overtaken an update on its way to the page.
                        if (found := self.cancelled.pop(visitor, None)) is not None:
                            yield from _ended(*found)
                        return
                    if timeline.is_complete or timeline.error:
                        break
                    self._store(visitor, timeline, rule)
                    yield _shown(timeline, rule)
            self.unfinished.pop(visitor, None)
            yield from _ended(timeline, rule)
        except Exception as error:  # the page says why
            if self.running.get(visitor) is identity:
                yield _nothing(failed(error, path.parent))
        finally:
            self.cancelled.pop(visitor, None)
            if self.running.get(visitor) is identity:
                del self.running[visitor]

    def cancel(self, request: gr.Request) -> Iterator[Update]:
        """End this visitor's run, and yield its timeline so far."""
        unfinished = self._end(request)
        if unfinished is None:
            yield _nothing(said(STOPPED, WORDS["stopped"], can_repeat=True))
        else:
            self.cancelled[request.session_hash or ""] = unfinished
            yield from _ended(*unfinished)

    def leave(self, request: gr.Request) -> None:
        """End the run of a visitor who closed the page."""
        self._end(request)
        for known in (self.clips, self.skipped):  # what still waits finds no video
            known.pop(request.session_hash or "", None)

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


def _nothing(head: dict[str, Any]) -> Update:
    return Update(head, None, NO_FILES)


def _shown(timeline: Timeline, rule: Rule) -> Update:
    segments = timeline.segments(threshold=rule.threshold, min_seconds=rule.min_seconds)
    return Update(progress_of(timeline, segments), plotted(timeline, segments), NO_FILES)


def _ended(timeline: Timeline, rule: Rule) -> Iterator[Update]:
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
        downloads = gr.update(value=[str(file) for file in files], visible=True)
        yield Update(summary_of(timeline, segments), plotted(timeline, segments), downloads)
