"""The words of Folder, of Models, and of what one does with a result."""

from __future__ import annotations

from collections.abc import Mapping

FOLDER = {
    "drop": "Drop clips here, as many as you like",
    "advice": "Each gets its answer. Put the wrong ones right, and teach a model with them.",
    "choose": "Choose clips",
    "another": "Drop other clips anywhere on this page",
    "root": "or look at a folder of this server:",
    "below": "Or a folder on the server",
    "everything": "all of {root}",
    "look": "Look at it",
    "view": "How closely to look",
    "model": "Model",
    "waiting": "Counting the clips",
    "looking": "Looking at the clips",
    "done": "{count} recognised",
    "stopped": "Stopped: {count} recognised",
    "clip": "1 clip",
    "clips": "{count} clips",
    "more": "The first {count} rows are shown; the downloads have all.",
    "passed": "Passed over: {kinds}.",
    "downloads": "The whole table:",
}
FOLDER_TABLE = {
    "views": {
        "order": "In their order",
        "check": "Check these: least sure first",
        "sure": "Surest first",
        "name": "By action",
        "errors": "Not read",
    },
    "view": "Show",
    "filter": "Filter by name or action",
    "filter_here": "Name or action",
    "open": "Open",
    "unknown": "unlike all classes",
    "right": "Right label of {path}",
    "accepted": "accepted",
    "corrected": "was {label}",
    "none": "No row fits.",
    "gone": "This run has expired. Choose the clips again.",
    "hint": "Enter accepts a label, typing corrects it, and the next row follows.",
    "corrections": "{count} labels put right or accepted.",
    "download": "corrections.csv",
    "teach": "Teach with these",
    "or": "or, with {download}, in the folder of the clips:",
    "command": "nonlocal-video teach corrections.csv --output taught",
}
"""Words that the script of the folder's table says."""


def folder_headline(read: int, *, is_stopped: bool) -> str:
    """Return in a few words how many clips a run has recognised."""
    count = FOLDER["clip"] if read == 1 else FOLDER["clips"].format(count=read)
    return FOLDER["stopped" if is_stopped else "done"].format(count=count)


def folder_counts(counts: Mapping[str, int], total: int) -> str:
    """Return how many files of a run were read, and why others were not."""
    words = ", ".join(f"{count} {_KINDS.get(code, code)}" for code, count in counts.items())
    return f"{sum(counts.values())} of {total} files{': ' if words else ''}{words}."


_KINDS = {
    "ok": "read",
    "not_a_video": "not a video",
    "not_found": "not found",
    "corrupt": "damaged",
    "no_video_stream": "without pictures",
    "unsupported_codec": "of an unknown kind",
    "too_large": "too large",
    "too_long": "too long",
    "timeout": "too slow to read",
    "decoder_crashed": "unreadable",
    "out_of_memory": "too large for the memory",
    "internal": "failed",
}


def folder_progress(done: int, total: int, seconds_left: float | None) -> str:
    """Return how far a run is, and how long it still takes if that is known."""
    left = "" if seconds_left is None else f", {time_left(seconds_left)} left"
    return f"{done} of {total} files{left}"


def time_left(seconds: float) -> str:
    """Return a duration in the words of a person."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"


MODELS = {
    "tab": "Models",
    "served": "On this server",
    "recommended": "Recommended models to download",
    "classes": "{count} classes, looks at {frames} frames",
    "here": "installed",
    "size": "{megabytes:.0f} MB",
    "by_hand": "to be fetched by hand",
    "commercial": "",
    "non_commercial": "not for commercial use",
    "agree": "I agree to the licence",
    "get": "Download",
    "accuracy": "{top1:.1f}% right on Kinetics-400 ({views} views)",
    "not_allowed": "Downloads from this page need a server that was started with --allow-pull. On its machine: "
    "nonlocal-video weights pull NAME.",
    "use": "To offer a model here, start the server with it: nonlocal-video serve --model NAME (repeatable).",
    "loading": "Downloading {name}: {done:.0f} MB",
    "loading_of": "Downloading {name}: {done:.0f} of {total:.0f} MB",
    "loaded": "{name} is installed. To offer it here, start the server with --model {name}.",
    "unknown": "Only the recommended models can be downloaded here.",
}
COMPARE = {
    "drop": "Drop a clip to see two models side by side",
    "advice": "What each of them answers, before and after: two players in step.",
    "choose": "Choose a clip",
    "another": "Drop another clip anywhere on this page",
    "reading": "Reading the clip",
    "first": "Before",
    "second": "After",
    "looking": "{name} is looking at the clip",
    "same": "Choose two different models.",
    "play": "Play",
    "pause": "Pause",
    "scrub": "Time in the clip",
    "legend": "Bright: speaks for the action that stands below it.",
    "open": "Open this result",
    "agree": "Both say {first}.",
    "differ": "Before: {first}. After: {second}.",
}
KEEP = {
    "bar": "What to do with this result",
    "link": "Link to this result",
    "copy": "Copy link",
    "copied": "Copied",
    "save": "Save",
    "similar": "Find more like this moment",
    "similar_looking": "Looking for moments like the one that was shown",
    "similar_where": "Now the clips to search in",
    "similar_then": "Drop them, or choose them above; then press “More like this moment”.",
    "strip": "strip",
    "scores": "Scores",
    "everything": "All of it",
    "recent": "Recent",
    "expired": "This result has expired. Drop the clip again.",
    "full": "The server keeps no more results: others have to be deleted first.",
    "waiting": "The picture of what it looked at is not ready yet.",
    "until": "Gone at {time}, unless you keep it.",
    "saved": "Kept until it is deleted or the server ends.",
    "keep": "Keep",
    "delete": "Delete",
    "unlike": "Unlike all classes of this model",
    "sure": "Really delete?",
    "details": "Details",
    "looked": "{model} looked at {summary}.",
    "own": "Try a clip of your own",
    "open": "Open the page",
    "gone": "Expired",
}
MAP_NAMES = {"evidence": "Why this answer", "attention": "What it watches"}

SIGN_IN = {
    "title": "Sign in to nonlocal-video",
    "user": "Name",
    "password": "Password",
    "enter": "Sign in",
    "wrong": "This name or this password is wrong.",
    "failed": "The server does not answer. Is it still running?",
}
