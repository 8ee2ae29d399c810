"""Every word on the page, in one place and in one language."""

from __future__ import annotations

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
REGION_TOO_LONG = "The part of the picture should be X0,Y0,X1,Y1, in at most {most} characters."
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
    "sending": "Sending the clip",
    "notSent": "It was not sent: {reason}. Try again.",
    "notSentTitle": "The clip did not arrive",
    "tooLargeTitle": "This clip is too large",
    "goneTitle": "This result has expired",
    "reading": "Reading the clip",
    "size": "{seconds} s, {width} × {height}",
    "network": "Looking at it",
    "drawing": "The answer is there; drawing what it rests on",
    "left": "about {seconds} s left",
    "ahead": {
        "one": "One clip before yours",
        "many": "{count} clips before yours",
        "left": "Your answer comes by itself in about {seconds} s.",
    },
    "stop": "Stop",
    "stopped": "Stopped. Drop another clip, or look at this one again.",
    "again": "Look again",
    "lost": "This result has expired. Drop the clip again.",
    "kept": "This answer was kept without what questions need. Drop the clip again to ask.",
    "offline": "The server does not answer. What is shown stays; try again in a moment.",
    "onlyHere": "Only this part of the picture was looked at",
    "wholePicture": "Look at the whole picture",
    "details": "Details",
    "why": "a bar shows what speaks for it",
}

TROUBLES = {
    "not_found": "This clip is gone",
    "not_a_video": "This is not a video",
    "no_video_stream": "This file has no pictures",
    "corrupt": "This file is damaged",
    "unsupported_codec": "This kind of video cannot be read",
    "too_large": "This clip is too large",
    "too_long": "This clip is too long",
    "timeout": "This clip takes too long to read",
    "decoder_crashed": "This file cannot be read",
    "out_of_memory": "This clip needs too much memory",
    "setting": "These settings do not fit this clip",
    "busy": "The server is busy",
    "expired": "This result has expired",
    "other": "There is no answer this time",
}
"""Headlines in place of an answer, by the code of the error; the sentence below says what to do."""

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
    "waiting": "What the answer rests on appears here.",
    "cannot": "Your browser cannot play this kind of file. It is shown here once the server has read it.",
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
NO_MAPS = (
    "There is no picture of what this answer rests on: the network names no layer before its classifier, and has no "
    "non-local block."
)
NO_EVIDENCE = "This network names no layer before its classifier, so it cannot be shown what speaks for an action."
NO_BLOCK = "This model has no non-local block, so there is no attention to ask about."
OUTSIDE = "The network did not see that place; click inside the bright part of the picture."
NOT_DRAWN = "The run was stopped before it was known what the network looked at."
EXPIRED = str(STAGE["lost"])
BUSY = "The server is busy: {count} clips are waiting. Try again in a minute; your clip need not be sent again."
ENDING = "The server is ending, and this was not finished. Look again when it is back."
NOT_KEPT = "What this answer was made from is no longer kept, or was too large to keep; look again to ask about it."

# Long clips
MOMENTS = {
    "title": "Moment by moment",
    "reading": "Reading the clip",
    "progress": "{planned} windows, {done} done",
    "left": "about {seconds} s left",
    "stop": "Stop",
    "stopped": "Stopped. The first {done} windows are below.",
    "broke": "The video breaks off here. The first {done} windows are below.",
    "cut": "The first {count} segments are shown; the Timeline tab's files have all.",
    "alone": "Each moment alone",
    "refined": "With the moments like it",
    "legend": "Click a moment to play it and to see which other moments its answer drew on.",
    "drew": "{time}: {label}. It drew on {others}.",
    "drewNothing": "{time}: {label}. No other moment is like it, so it stands alone.",
    "itself": "itself ({percent})",
    "other": "{time} ({percent})",
    "segments": "Segments",
    "here": "Ask why here",
    "area": "Moments of the clip",
    "none": "no action",
}

# The endpoints of `gradio_client`
CLASSIFY = """The likeliest actions of one clip, as one row of `nonlocal-video classify --json`.

The row has the keys file (there its path), status ("ok" or "error"), model, top (label, index, score), error (code,
message), video, seconds and notes. A clip that cannot be read gives a row with an error. region is X0,Y0,X1,Y1, the
part of the picture to look at, in fractions of its width and height; without it, it is the whole picture."""
EXPLAIN = """Where the network looked in one clip: a JSON object, and an overlay video in H.264.

The object has the row of /classify as `prediction`; `method`, `layer`, `quantity`, `seconds` of the sampled frames;
`query`; `entropy_nats`, `maximum_entropy_nats` and `temporal_spread_seconds` of an attention map; and `strongest`, the
places with the greatest values (seconds, x and y as fractions of the frame, value). Method query needs query_seconds,
query_x and query_y. region is that of /classify; all places are fractions of the whole picture."""
TIMELINE = """What happens when in a long clip: the JSON object of `nonlocal-video timeline --json`.

The object has windows and segments, each with start_seconds and end_seconds, and status: "ok" if the windows reach the
end, "error" if the video broke off, with its error. `submit()` gives what there is every few seconds, with the status
"stopped", and its `cancel()` ends the work. window_seconds and stride_seconds are the model's own and half a window if
they are not given. A clip of which not even one window can be read is refused. region is that of /classify."""
