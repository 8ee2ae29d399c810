"""The words of the Timeline tab: times, progress, what was looked at."""

from __future__ import annotations

from html import escape
from typing import Any

from nonlocal_video.inference.timeline import Segment, Timeline

SHOWN_ROWS = 500
"""Number of segments on the page, the first ones; the downloads contain all."""
MIN_TIMED_WINDOWS = 5
"""Number of windows after which the remaining time is shown; the first ones warm up."""
NO_ACTION = "(no action)"


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


def row_of(segment: Segment) -> list[Any]:
    """Return the row of a segment in the table."""
    start, end = short_clock(segment.start_seconds), short_clock(segment.end_seconds)
    return [start, end, segment.label or NO_ACTION, f"{segment.score:.0%}"]


def progress_of(timeline: Timeline) -> str:
    """Return how far a run is, and how long it still takes."""
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


def summary_of(timeline: Timeline, num_segments: int) -> str:
    """Return what was looked at, as Markdown: how much of the video, and the details behind a fold."""
    lines = []
    if timeline.error is not None:
        lines.append(timeline.error.message)
    windows = f"{len(timeline)} windows in {timeline.timings.total:.1f} s."
    if not timeline.is_complete:
        windows = (
            f"{windows} That is {len(timeline)} of {timeline.num_planned} windows, up to "
            f"{short_clock(timeline.ends[-1])}."
        )
    if num_segments > SHOWN_ROWS:
        windows += f" The first {SHOWN_ROWS} segments are shown; the files have all."
    details = " ".join([f"{timeline.model} looked at {timeline.summary}.", *timeline.notes])
    return "\n\n".join([*lines, windows, f"<details><summary>Details</summary>{escape(details)}</details>"])
