"""A long video on the page: its timeline as it grows, cancelled or to the end."""

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

from .choices import FAST, WIDE, WIDE_TIMES
from .messages import GONE, plain_errors, refusal, without_folder
from .timeline_plot import plotted

HEADERS = ["Start", "End", "Action", "Score"]
SHOWN_ROWS = 500
"""The page shows the first ones; the downloads have all."""
DOWNLOADS = (".json", ".csv", ".vtt")
UPDATE_SECONDS = 1.0
MAX_KEPT = 8
"""Timelines of runs that nobody has cancelled yet; one runs at a time, the others' visitors have left."""
UPDATE_SHARE = 10
"""Updates of a very long timeline are rarer: drawing them takes at most one part in so many."""
TIMED_FROM = 5
"""Windows after which the page says how long the rest takes; the first ones warm up."""
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
    """How segments are made; see `Timeline.segments`."""

    threshold: float
    min_seconds: float


@dataclass(frozen=True)
class TimelineRuns:
    """The callbacks of the timeline tab."""

    recognizers: Mapping[str, Recognizer]
    kept: dict[str, tuple[Timeline, Rule]] = field(default_factory=dict)
    """Visitor -> what stands on the page of the run in progress; a cancelled run is written from it."""

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
        """The timeline as it grows, then the files to download."""
        if clip is None:
            raise refusal(CHOOSE)
        path, rule, visitor = Path(clip), Rule(threshold, min_seconds), request.session_hash or ""
        with plain_errors(path.parent):
            if not path.is_file():
                raise VideoError("not_found", GONE)
            recognizer = self.recognizers[model]
            settings = _settings(recognizer, path, window, stride)
            with closing(so_far(recognizer, path, update_seconds=UPDATE_SECONDS, **settings)) as steps:
                for timeline in steps:
                    if timeline.is_complete or timeline.error:
                        break
                    self._keep(visitor, timeline, rule)
                    yield _shown(timeline, rule, _progress(timeline))
            self.kept.pop(visitor, None)
            yield from _ended(timeline, rule, "Done." if timeline.is_complete else "The video broke off.")

    def cancel(self, request: gr.Request) -> Iterator[Update]:
        """What there is of this visitor's run, which Gradio has ended."""
        kept = self.kept.pop(request.session_hash or "", None)
        if kept is None:
            yield _nothing(NOTHING_YET)
        else:
            yield from _ended(*kept, "Cancelled.")

    def choose(self, request: gr.Request) -> Update:
        """Take the last video's answer off the page: it never stands beside another video."""
        self.leave(request)
        return _nothing(INVITATION)

    def leave(self, request: gr.Request) -> None:
        """Forget the run of a visitor who closed the page."""
        self.kept.pop(request.session_hash or "", None)

    def _keep(self, visitor: str, timeline: Timeline, rule: Rule) -> None:
        self.kept[visitor] = timeline, rule
        while len(self.kept) > MAX_KEPT:
            del self.kept[next(iter(self.kept))]


def so_far(
    recognizer: Recognizer,
    path: Path,
    *,
    update_seconds: float,
    fast: bool = False,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    region: str | None = None,
) -> Generator[Timeline, None, None]:
    """The timeline every now and then; the last one is complete, or says why it is not.

    Args:
        recognizer: That answers.
        path: The video.
        update_seconds: At least so long from one to the next.
        fast: See `slide`.
        window_seconds: See `slide`.
        stride_seconds: See `slide`.
        region: See `slide`.

    Raises:
        VideoError: There is not even a first window.
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
    """What `slide` takes for a value of `window_choices` and a stride in windows."""
    spec = recognizer.card.view(fast=window == FAST)
    with recognizer.new_reader() as reader:  # a model's own span may depend on the video's rate
        span = spec.num_frames / spec.rate_in(reader.probe(path).fps)
    if window != WIDE:
        return {"fast": window == FAST, "stride_seconds": stride * span}
    return {"window_seconds": WIDE_TIMES * span, "stride_seconds": stride * WIDE_TIMES * span}


def short_clock(seconds: float) -> str:
    """Minutes and hundredths, hours only if there are any: 83.5 -> 1:23.50."""
    minutes, rest = divmod(round(100 * seconds), 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 100:05.2f}" if hours else f"{minutes}:{rest / 100:05.2f}"


def seconds_of(shown: str) -> float:
    """What `short_clock` shows, as a number."""
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
        # Gradio copies the files before it asks for the next update, and so before the folder goes.
        files = [
            write_timeline(
                Path(folder) / f"{Path(timeline.path).stem}{ending}",
                timeline,
                threshold=rule.threshold,
                min_seconds=rule.min_seconds,
            )
            for ending in DOWNLOADS
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
    if done < TIMED_FROM:
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
