"""Every word on the page, in one place and in one language."""

from __future__ import annotations

from collections.abc import Sequence

from nonlocal_video.attention.maps import AttentionMaps, Target
from nonlocal_video.inference.prediction import ScoredLabel

from .sureness import NOT_SURE, sureness_of

TITLE = "nonlocal-video"
INTRODUCTION = "What is happening in this video, and what made the network think so?"
LIMITS = """Up to {megabytes} MB, {hours:g} hours and {megapixels:g} megapixels a frame. A clip stays on this server and
is deleted after {minutes:g} minutes."""

TABS = {
    "recognise": "Recognise",
    "timeline": "Timeline",
    "search": "Search",
    "teach": "Teach",
    "live": "Live",
    "folder": "Folder",
    "api": "API",
}

# Intake
DROP = "Drop a clip here, paste it, or record one"
ADVICE = "A few seconds of one action work best."
CHOOSE = "Choose a clip"
SETTINGS = "Settings"
MODEL = "Model"
VIEW = "How closely to look"
REGION = "Only this part of the picture"
REGION_INFO = "Drag a rectangle on the player, or type left, top, right and bottom edge as fractions, then press Enter."
START = "From second"
END = "To second"
DEVICE = "Model {model}, computing on {device}."
INTAKE = {
    "drop": DROP,
    "advice": ADVICE,
    "dropNow": "Let go to recognise it",
    "another": "Drop another clip anywhere on this page",
    "record": "Record",
    "stop": "Stop",
    "recordWait": "Recording starts in {seconds}",
    "recording": "Recording, {seconds} s",
    "refused": "The camera is not available: {reason}",
    "insecure": "Browsers offer the camera only over HTTPS or on this machine's own address. "
    "Record with another program and drop the file here.",
    "samples": "Or try one of these",
    "several": "One clip at a time here; the first one was taken. The Folder tab takes many.",
    "tooLarge": "{name} has {megabytes} MB, and this server takes {most} MB at most. Cut a part of it.",
}

# States of the answer
STAGE = {
    "sending": "Sending {name}",
    "notSent": "The clip did not arrive: {reason}. Try again.",
    "reading": "Reading the clip",
    "readingSize": "Reading the clip: {seconds} s, {width} × {height}",
    "network": "Looking at it",
    "drawing": "The answer is there; drawing what it rests on",
    "left": "about {seconds} s left",
    "ahead": {
        "one": "One clip before yours, about {seconds} s",
        "many": "{count} clips before yours, about {seconds} s",
    },
    "stop": "Stop",
    "stopped": "Stopped. Drop another clip, or look at this one again.",
    "again": "Look again",
    "lost": "This result has expired. Drop the clip again.",
    "offline": "The server does not answer. What is shown stays; try again in a moment.",
    "onlyHere": "Only this part of the picture was looked at",
    "wholePicture": "Look at the whole picture",
    "details": "Details",
    "bars": "Ask why one of these: {label}, {percent}",
    "why": "a bar shows what speaks for it",
}

# The player
PLAYER = {
    "clip": "Clip",
    "evidence": "Why this answer",
    "attention": "What it watches",
    "show": "What the player shows",
    "strength": "Strength",
    "speed": "Speed",
    "play": "Play",
    "pause": "Pause",
    "picture": "The clip. Click a point, or press Enter and move with the arrow keys, to ask what it attends to; "
    "drag a rectangle to look only there.",
    "scrub": "Time in the clip",
    "clipLegend": "The clip as it is. Click a point to ask what it attends to; drag a rectangle to look only there.",
    "asking": "Asking what this point attends to",
    "numbers": "Numbers",
    "escape": "Escape ends the question.",
    "end": "Back",
    "waiting": "What the answer rests on appears here.",
    "cannot": "Your browser cannot play this kind of file. Everything else works with it.",
    "made": "How is this made?",
    "unseen": "Dim parts of the picture were not seen.",
    "check": "Check this picture",
    "checking": "Looking again without the brightest places",
}
MADE = {
    "evidence": "The network's score for an action is a sum over places and moments. Bright places are those that add "
    "most to it. Blurring them and asking again is a way to check: the button below does so.",
    "attention": "A non-local block compares every place of every frame with every other. Bright places are those that "
    "all others look at most. This is what the network attends to, which need not be what its answer rests on.",
    "query": "The non-local block weighs all places of all frames for the point that you chose. Dots mark the eight "
    "strongest; the percentages are their shares of all that the point attends to.",
}
PAPER = "https://arxiv.org/abs/1711.07971"
PAPER_NAME = "Non-local Neural Networks, the paper"

EVIDENCE_LEGEND = "Bright places speak for “{label}”."
ATTENTION_LEGEND = "Bright places are those that the rest of the clip attends to most."
QUERY_LEGEND = "Bright places are those that the ringed point attends to."
NO_BLOCK = "This model has no non-local block, so there is no attention to ask about."
OUTSIDE = "The network did not see that place; click inside the bright part of the picture."
EXPIRED = STAGE["lost"]
BUSY = "The server is busy: {count} clips are waiting. Try again in a minute."
TOO_LARGE = (
    "This clip takes more memory than the server keeps for questions; the answer stands, points cannot be asked."
)

# Long clips
MOMENTS = {
    "title": "Moment by moment",
    "progress": "{planned} windows, {done} done",
    "left": "about {seconds} s left",
    "stop": "Stop",
    "stopped": "Stopped. The first {done} windows are below.",
    "broke": "The video breaks off here. The first {done} windows are below.",
    "alone": "Each moment alone",
    "refined": "With the moments like it",
    "legend": "Click a moment to play it and to see which other moments its answer drew on.",
    "drew": "{time}: {label}. It drew on {others}.",
    "drewNothing": "{time}: {label}. No other moment is like it, so it stands alone.",
    "itself": "itself {percent}",
    "other": "{time} {percent}",
    "segments": "Segments",
    "here": "Ask why here",
    "area": "Moments of the clip",
    "none": "no action",
}


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
    """Format a share from 0 to 1; certainty is left to those who have it."""
    return "over 99%" if 0.995 <= share < 1 else f"{share:.0%}"


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
