"""The words of the Timeline tab: times, progress, what happens in the video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from nonlocal_video.inference.timeline import Segment, Timeline

from ..components.headline import DONE, STOPPED, WORKING, said
from ..components.timeline_plot import SHOWN_SEGMENTS
from ..sureness import LEAST_LEAD
from ..texts_more import time_left
from ..tool_texts import TIMELINE as WORDS

MIN_TIMED_WINDOWS = 5
"""Number of windows after which the remaining time is shown; the first ones warm up."""
MOSTLY = 0.7
"""Share of the time from which on one action is what happens."""


def short_clock(seconds: float) -> str:
    """Format seconds as minutes, with hours if there are any: 83.5 -> 1:23.50."""
    minutes, rest = divmod(round(100 * seconds), 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 100:05.2f}" if hours else f"{minutes}:{rest / 100:05.2f}"


def what_happens(segments: Sequence[Segment]) -> str:
    """Return in a few words what happens: the actions that take the most time, and whether they are worth believing."""
    named = [segment for segment in segments if segment.label is not None]
    seconds: Counter[str] = Counter()
    for segment in named:
        seconds[str(segment.label)] += segment.seconds  # type: ignore[assignment]  # counts may be fractions
    labels = [label for label, _ in seconds.most_common()]
    if not labels:
        return WORDS["nothing"]
    first, *others = labels
    if not others:
        words = WORDS["all"].format(first=first)
    elif seconds[first] >= MOSTLY * seconds.total():
        words = WORDS["mostly"].format(first=first)
    else:
        words = WORDS["two" if len(others) == 1 else "more"]
        words = words.format(first=first, second=others[0], count=len(others) - 1)
    # No label leads by more than its score.
    if sum(segment.score * segment.seconds for segment in named) < LEAST_LEAD * seconds.total():
        words = WORDS["not_sure"].format(words=words)
    return words[:1].upper() + words[1:]


def progress_of(timeline: Timeline, segments: Sequence[Segment]) -> dict[str, Any]:
    """Return the headline of a run: what happens so far, how far it is, and how long it still takes."""
    done, planned = len(timeline), timeline.num_planned
    doing = WORDS["progress"].format(planned=planned, done=done)
    if done >= MIN_TIMED_WINDOWS:
        doing += WORDS["left"].format(time=time_left(timeline.timings.total / done * (planned - done)))
    return said(WORKING, what_happens(segments), doing, share=done / planned)


def summary_of(timeline: Timeline, segments: Sequence[Segment]) -> dict[str, Any]:
    """Return the headline of a run that has ended, was stopped, or broke off."""
    done, at = len(timeline), short_clock(timeline.ends[-1]).rpartition(".")[0]
    if timeline.error is not None:
        doing = WORDS["broke"].format(time=at, reason=timeline.error.message)
    elif not timeline.is_complete:
        doing = WORDS["part"].format(time=at, done=done, planned=timeline.num_planned)
    else:
        doing = WORDS["one" if len(segments) == 1 else "segments"].format(count=len(segments), time=at)
    if len(segments) > SHOWN_SEGMENTS:
        doing = f"{doing} {WORDS['shown'].format(count=SHOWN_SEGMENTS)}"
    details = [
        WORDS["looked"].format(model=timeline.model, summary=timeline.summary),
        WORDS["took"].format(done=done, seconds=timeline.timings.total),
        *timeline.notes,
    ]
    state = DONE if timeline.is_complete else STOPPED
    return said(state, what_happens(segments), doing, details=details, can_repeat=True)
