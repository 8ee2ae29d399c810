"""Sentences of the page that are made of an answer: how sure it is, what a point attends to."""

from __future__ import annotations

from collections.abc import Sequence

from nonlocal_video.attention.maps import AttentionMaps, Target
from nonlocal_video.inference.prediction import ScoredLabel

from .sureness import NOT_SURE, sureness_of


def headline(top: Sequence[ScoredLabel]) -> str:
    """Return the answer in words: the action, or the two that are too close to call."""
    first = top[0]
    if _word(top) == NOT_SURE and len(top) > 1:
        return f"Not sure: looks like {first.label} or {top[1].label}"
    return first.label


def confidence(top: Sequence[ScoredLabel]) -> str:
    """Return how sure the answer is, in words and as a number."""
    word = _word(top)
    if word == NOT_SURE and len(top) > 1:
        return f"{percent(top[0].score)} and {percent(top[1].score)}"
    return f"{word.capitalize()}, {percent(top[0].score)}"


def percent(share: float) -> str:
    """Format a share from 0 to 1; no network is certain, and a row's score of 1 was rounded."""
    return "over 99%" if share >= 0.995 else f"{share:.0%}"


def figure(share: float) -> str:
    """Format a share for a table, as percent.js does: what is nearly nothing or nearly certain is not rounded to it."""
    if share >= 0.995:
        return ">99%"
    return "<1%" if share < 0.005 else f"{share:.0%}"


def place(x: float, y: float) -> str:
    """Return a place of the picture in plain words; x and y are fractions from the left and from the top."""
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    row = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else ""
    if row and column:
        return f"the {row} {column}"
    if row:
        return f"the {row} middle"
    return f"the {column}" if column else "the middle"


def when(seconds: float) -> str:
    """Return a distance in time in plain words."""
    if abs(seconds) < 0.05:
        return "at the same moment"
    return f"{abs(seconds):.1f} s {'later' if seconds > 0 else 'earlier'}"


def attends(maps: AttentionMaps, targets: Sequence[Target], total: float) -> str:
    """Return in plain words what a point attends to most; `total` is the sum of all weights above 0."""
    assert maps.query is not None
    if not targets:
        return "This point attends to all places alike."
    best = targets[0]
    moment = when(best.seconds - maps.query.seconds)
    return (
        f"This point attends most to {place(best.x, best.y)}, {moment}: {percent(best.value / total)} of its attention."
    )


def numbers(maps: AttentionMaps, targets: Sequence[Target], total: float) -> list[str]:
    """Return the statistics of a point's attention, for those who want them."""
    lines = [f"{maps.quantity}; layer {maps.layer}, {maps.cells.size} places"]
    if maps.entropy_nats is not None and maps.temporal_spread_seconds is not None:
        lines.append(
            f"entropy {maps.entropy_nats:.2f} nats of at most {maps.maximum_entropy_nats:.2f}; spread in time "
            f"{maps.temporal_spread_seconds:.2f} s, {maps.even_temporal_spread_seconds:.2f} s for equal weights"
        )
    lines += [
        f"{target.seconds:.2f} s, {target.x:.0%} from the left, {target.y:.0%} from the top: {target.value / total:.1%}"
        for target in targets
    ]
    return lines


def _word(top: Sequence[ScoredLabel]) -> str:
    lead = top[0].score - (top[1].score if len(top) > 1 else 0.0)
    return sureness_of(top[0].score, lead)
