"""The words of the tabs for search, teaching and the live camera."""

from __future__ import annotations

from .sureness import NOT_SURE

NO_CAMERA = "No camera was found. Plug one in, and try again."
CAMERA_NEEDS_HTTPS = (
    "This browser gives the camera only to pages over HTTPS, or on the computer that runs the server. "
    "Open this page there, or drop a clip instead."
)
CAMERA_REFUSED = "The browser was not allowed to use the camera. Allow it in the address bar, and try again."
CAMERA_BUSY = "The camera could not be started; another program may be using it."

LIVE_LAYOUT = {
    "picture": "The camera's picture",
    "invitation": "Start the camera, and do something.",
    "view": "How closely to look",
    "quick": "Quick answers",
    "standard": "A closer look, slower",
    "privacy": "The pictures go to this server alone. It keeps the last few seconds, in memory, while you watch.",
    "nothing": "What are you doing?",
    "nothing_more": "The answer appears here, and changes with what you do.",
    "past": "The last minute",
    "minute": "a minute ago",
    "now": "now",
}
LIVE = {
    "start": "Start the camera",
    "stop": "Stop",
    "opening": "Opening the camera",
    "looking": "Looking. The first answer needs {seconds} seconds of pictures.",
    "busy": "The server is busy with other visitors; this goes on by itself.",
    "no_answer": "The server does not answer. Is it still running?",
    "paused": "The camera was switched off while you looked elsewhere.",
    "unknown": "None of the classes",
    "unsure": "Not sure: looks like {a} or {b}",
    "score": "{sure}, {score}",
    "not_sure": NOT_SURE,
    "pace": "An answer takes {seconds} s here; this one is about what the camera saw {late} s ago.",
    "now": "just now",
    "ago": "since {seconds} s",
}

SEARCH = {
    "where": "Search in",
    "root": "The server's folder {name}",
    "own": "My own clips",
    "clips": "Clips to search in",
    "index": "Look through them",
    "stop": "Stop",
    "example": "Find moments like one of",
    "upload": "Or like a clip of yours",
    "moment": "More like this moment",
    "whole": "More like the whole clip",
    "label": "Only moments that look like",
    "label_hint": "Any action",
    "invitation": "**Find more of the same.** Choose clips, and play one to the moment that you want more of.",
    "reading": "Looked through {done} of {total} clips: {windows} moments.",
    "ready": "{files} clips with {windows} moments can be searched.{errors} Choose one, or drop another.",
    "stopped": "Stopped. {files} clips can be searched; looking through them again does the rest.",
    "errors": " {count} could not be read, or not to their end.",
    "no_clips": "Drop some clips first.",
    "no_index": "Look through the clips first.",
    "no_example": "Choose a clip, or drop one, to find more like it.",
    "too_many": "At most {most} clips of your own can be searched; --folder-root takes a whole folder.",
    "found": "{count} moments like {name}, {where}, the most alike first.",
    "found_none": "There is no other moment{label}.",
    "at": "at {seconds}",
    "all": "all of it",
    "save": "Save the chosen ones",
    "save_none": "Tick the moments that you want to save.",
    "saved": "The chosen moments, as MP4 files",
    "more": "More like this",
    "choose": "Save this one",
    "likeness": "Likeness {score}",
}
