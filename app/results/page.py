"""The page of a result: one HTML document that asks for nothing but the result's own files."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from ..components.keep_bar import RECENT_SCRIPT
from .files import CLIP, KeptResult

_HERE = Path(__file__).parent
_STYLE = (_HERE / "result.css").read_text("utf-8")
_SCRIPT = f"{RECENT_SCRIPT}\n{(_HERE / 'result.js').read_text('utf-8')}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; img-src 'self'; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Nothing but this page's own script and style, and the files of this server."""

VIEWS = {
    CLIP: ("Clip", "The frames that the network saw."),
    "evidence": ("Why this answer", "Bright: speaks for \u201c{label}\u201d. Dark edges were not seen."),
    "attention": ("What it watches", "Bright: the places that all others look at. Dark edges were not seen."),
}
"""Button and sentence of each view of the player."""
DOWNLOADS = {
    ".mp4": "Video (MP4)",
    ".gif": "Animation (GIF)",
    ".webp": "Animation (WebP)",
    ".png": "Strip of frames (PNG)",
}
UNKNOWN = "Unlike all classes of this model"


def result_page(kept: KeptResult, *, keep_seconds: float) -> str:
    """Return the page of a result."""
    best, name = kept.row["top"][0], escape(kept.row["path"])
    until = datetime.fromtimestamp(kept.created + keep_seconds).astimezone().strftime("%H:%M")
    life = "Kept until it is deleted or the server ends." if kept.is_saved else f"Gone at {until}, unless you keep it."
    keep = "" if kept.is_saved else '<button type="button" id="save">Keep</button>'
    headline = UNKNOWN if kept.row.get("unknown") else best["label"]
    body = f"""<main data-id="{kept.id}" data-label="{escape(best["label"])}" data-score="{best["score"]:.4f}">
<div class="stage">{_player(kept)}</div>
<div class="answer"><p class="name">{name}</p><h1>{escape(headline)}</h1><p class="sure">{best["score"]:.0%} sure</p>
{_bars(kept)}
<div class="tools"><button type="button" id="copy">Copy link</button>{_downloads(kept)}{keep}
<button type="button" id="delete">Delete</button></div>
<p class="small" id="life" role="status">{life}</p>
<details><summary>Details</summary><p class="small">{escape(kept.row["model"])} looked at {escape(kept.summary)}.
{escape(" ".join(kept.row["notes"]))}</p></details></div>
</main>"""
    return _document(f"{headline}: {kept.row['path']}", body)


def gone_page(words: str) -> str:
    """Return the page in place of a result that is not there any more."""
    body = f'<main class="gone"><div><h1>{escape(words)}</h1><p><a href="/">Open the page</a></p></div></main>'
    return _document("Expired", body)


def _document(title: str, body: str) -> str:
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>
<body><header><a href="/">nonlocal-video</a><a class="again" href="/">Try a clip of your own</a></header>
{body}
<section id="recent" aria-labelledby="recent-title" hidden><h2 id="recent-title">Recent in this browser</h2><ul></ul>
</section><script>{_SCRIPT}</script></body></html>"""


def _player(kept: KeptResult) -> str:
    if kept.words:
        return f'<p class="waiting">{escape(kept.words)}</p>'
    if not kept.maps:
        return '<p class="waiting" data-waiting>The picture of what it looked at is not ready yet.</p>'
    label = kept.row["top"][0]["label"]
    shown = kept.maps[0]
    buttons = "".join(
        f'<button type="button" aria-pressed="{str(view == shown).lower()}" data-source="/r/{kept.id}/{view}.mp4" '
        f'data-words="{escape(VIEWS[view][1].format(label=label))}">{VIEWS[view][0]}</button>'
        for view in (CLIP, *kept.maps)
    )
    speeds = "".join(
        f'<button type="button" aria-pressed="{str(speed == 1).lower()}" data-speed="{speed}">{speed}×</button>'
        for speed in (0.25, 0.5, 1)
    )
    words = escape(VIEWS[shown][1].format(label=label))
    return f"""<div class="switch" role="group" aria-label="What the player shows">{buttons}</div>
<video src="/r/{kept.id}/{shown}.mp4" poster="/r/{kept.id}/thumbnail.jpg" aria-label="The clip with what it looked at"
controls autoplay loop muted playsinline></video>
<div class="under"><p class="legend" aria-live="polite">{words}</p>
<div class="switch" role="group" aria-label="Speed">{speeds}</div></div>"""


def _bars(kept: KeptResult) -> str:
    rows = "".join(
        f'<li><span class="label">{escape(one["label"])}</span><span class="score">{one["score"]:.0%}</span>'
        f'<meter min="0" max="1" value="{one["score"]:.4f}" aria-label="{escape(one["label"])}"></meter></li>'
        for one in kept.row["top"]
    )
    return f'<ol class="bars">{rows}</ol>'


def _downloads(kept: KeptResult) -> str:
    links = [(f"{name}{kind}", f"{VIEWS[name][0]}: {words}") for name in kept.maps for kind, words in DOWNLOADS.items()]
    links = [*links, ("result.json", "Scores (JSON)"), *([("all.zip", "All of them (ZIP)")] if kept.maps else [])]
    items = "".join(
        f'<li><a href="/r/{kept.id}/{quote(name)}" download="{escape(f"{kept.name} {name}")}">{words}</a></li>'
        for name, words in links
    )
    return f'<details class="menu"><summary>Download</summary><ul>{items}</ul></details>'
