"""Callbacks of the timeline tab: the growing timeline of a long video, until it ends or is cancelled."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.errors import VideoError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.sliding import slide
from nonlocal_video.inference.timeline import Segment, Timeline
from nonlocal_video.inference.timeline_files import write_timeline

from ..choices import FAST, WIDE, WIDE_TIMES
from ..components.timeline_plot import plotted
from ..messages import GONE, plain_errors, refusal, without_folder

HEADERS = ["Start", "End", "Action", "Score"]
SHOWN_ROWS = 500
"""Number of segments on the page, the first ones; the downloads contain all."""
DOWNLOADS = (".json", ".csv", ".vtt")
UPDATE_SECONDS = 1.0
MAX_UNFINISHED = 8
"""Maximum number of stored timelines of unfinished runs; one runs at a time, and other visitors have left."""
UPDATE_SHARE = 10
"""Inverse of the largest share of time spent on drawing: updates of a very long timeline are rarer."""
MIN_TIMED_WINDOWS = 5
"""Number of windows after which the remaining time is shown; the first ones warm up."""
INVITATION = """**Choose a video, then press Start.** While it is looked at you will see

- the scores of the likeliest actions over time,
- the segments: what happens from when to when.

A click on either goes to that place of the video."""
NO_ACTION = "(no action)"
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
    unfinished: dict[str, tuple[Timeline, Rule]] = field(default_factory=dict)
    """Timeline on the page for each visitor's run in progress; a cancelled run is written from it."""

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
        if clip is None:
            raise refusal(CHOOSE)
        path, rule, visitor = Path(clip), Rule(threshold, min_seconds), request.session_hash or ""
        with plain_errors(path.parent):
            if not path.is_file():
                raise VideoError("not_found", GONE)
            recognizer = self.recognizers[model]
            settings = _settings(recognizer, path, window, stride)
            with closing(timeline_updates(recognizer, path, update_seconds=UPDATE_SECONDS, **settings)) as steps:
                for timeline in steps:
                    if timeline.is_complete or timeline.error:
                        break
                    self._store(visitor, timeline, rule)
                    yield _shown(timeline, rule, _progress(timeline))
            self.unfinished.pop(visitor, None)
            yield from _ended(timeline, rule, "Done." if timeline.is_complete else "The video broke off.")

    def cancel(self, request: gr.Request) -> Iterator[Update]:
        """Yield the partial timeline of this visitor's run, which Gradio has ended."""
        unfinished = self.unfinished.pop(request.session_hash or "", None)
        if unfinished is None:
            yield _nothing(NOTHING_YET)
        else:
            yield from _ended(*unfinished, "Cancelled.")

    def choose(self, request: gr.Request) -> Update:
        """Clear the last timeline when another video is chosen."""
        self.leave(request)
        return _nothing(INVITATION)

    def leave(self, request: gr.Request) -> None:
        """Drop the timeline of a visitor who closed the page."""
        self.unfinished.pop(request.session_hash or "", None)

    def _store(self, visitor: str, timeline: Timeline, rule: Rule) -> None:
        self.unfinished[visitor] = timeline, rule
        while len(self.unfinished) > MAX_UNFINISHED:
            del self.unfinished[next(iter(self.unfinished))]


def timeline_updates(
    recognizer: Recognizer,
    path: Path,
    *,
    update_seconds: float,
    fast: bool = False,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    region: str | None = None,
) -> Generator[Timeline, None, None]:
    """Yield the growing timeline from time to time; the last one is complete or has an error.

    Args:
        recognizer: Recognizer to use.
        path: Path of the video.
        update_seconds: Minimum seconds between two timelines.
        fast: See `slide`.
        window_seconds: See `slide`.
        stride_seconds: See `slide`.
        region: See `slide`.

    Raises:
        VideoError: Not even the first window can be read.
    """
    timeline, due = None, 0.0
    windows = slide(
        recognizer, path, fast=fast, window_seconds=window_seconds, stride_seconds=stride_seconds, region=region
    )
    with closing(windows):
        for timeline in windows:
            timeline = replace(timeline, path=path.name)
            if timeline.is_complete or timeline.error:
                break
            if (now := time.monotonic()) >= due:
                yield timeline
                shown = time.monotonic()
                due = shown + max(update_seconds, UPDATE_SHARE * (shown - now))
    assert timeline is not None
    if timeline.error:
        error = VideoError(timeline.error.code, without_folder(timeline.error.message, path.parent))
        timeline = replace(timeline, error=error)
    yield timeline


def _settings(recognizer: Recognizer, path: Path, window: str, stride: float) -> dict[str, Any]:
    """Return the arguments of `slide` for a value of `window_choices` and a stride in windows."""
    spec = recognizer.card.view(fast=window == FAST)
    with recognizer.new_reader() as reader:  # a model's own span may depend on the video's rate
        span = spec.num_frames / spec.rate_in(reader.probe(path).fps)
    if window != WIDE:
        return {"fast": window == FAST, "stride_seconds": stride * span}
    return {"window_seconds": WIDE_TIMES * span, "stride_seconds": stride * WIDE_TIMES * span}


def short_clock(seconds: float) -> str:
    """Format seconds as minutes, with hours if there are any: 83.5 -> 1:23.50."""
    minutes, rest = divmod(round(100 * seconds), 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 100:05.2f}" if hours else f"{minutes}:{rest / 100:05.2f}"


def seconds_of(shown: str) -> float:
    """Parse the seconds of a time formatted by `short_clock`."""
    seconds = 0.0
    for part in shown.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _nothing(words: str) -> Update:
    return Update(words, gr.update(visible=False), None, [], NO_FILES)


def _shown(timeline: Timeline, rule: Rule, status: str) -> Update:
    segments = timeline.segments(threshold=rule.threshold, min_seconds=rule.min_seconds)
    return Update(
        status=status,
        results=gr.update(visible=True),
        plot=plotted(timeline, segments),
        table=[_row(segment) for segment in segments[:SHOWN_ROWS]],
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
        shown = _shown(timeline, rule, f"{how} {_summary(timeline, len(segments))}")
        yield shown._replace(downloads=gr.update(value=[str(file) for file in files], visible=True))


def _row(segment: Segment) -> list[Any]:
    start, end = short_clock(segment.start_seconds), short_clock(segment.end_seconds)
    return [start, end, segment.label or NO_ACTION, f"{segment.score:.0%}"]


def _progress(timeline: Timeline) -> str:
    done, planned = len(timeline), timeline.num_planned
    best = timeline.top(done - 1, 1)[0]
    words = f"Window {done} of {planned}, up to {short_clock(timeline.ends[-1])}: {best.label} {best.score:.0%}."
    if done < MIN_TIMED_WINDOWS:
        return words
    return f"{words} {_about(timeline.timings.total / done * (planned - done))} left."


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"About {max(1, round(seconds))} s"
    return f"About {round(seconds / 60)} minutes" if seconds < 5400 else f"About {seconds / 3600:.1f} hours"


def _summary(timeline: Timeline, num_segments: int) -> str:
    windows = f"{timeline.model} looked at {timeline.summary}, in {timeline.timings.total:.1f} s."
    if not timeline.is_complete:
        windows += (
            f" That is {len(timeline)} of {timeline.num_planned} windows, up to {short_clock(timeline.ends[-1])}."
        )
    lines = [windows, *timeline.notes]
    if timeline.error is not None:
        lines.insert(0, timeline.error.message)
    segments = f" The first {SHOWN_ROWS} segments are shown; the files have all."
    return "\n\n".join(lines) + (segments if num_segments > SHOWN_ROWS else "")
