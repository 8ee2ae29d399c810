"""The page of a result: one HTML document that asks for nothing but the result's own files."""

from __future__ import annotations

import json
from datetime import datetime
from html import escape
from pathlib import Path

from nonlocal_video.inference.prediction import ScoredLabel

from .. import sentences, texts, texts_more
from ..components.player import PLAYER_SCRIPTS, PLAYER_STYLE, player_template, player_words, script
from ..content_policy import source_hash
from .files import KeptResult

_HERE = Path(__file__).parent
_STYLE = "\n".join([(_HERE / "result.css").read_text("utf-8"), PLAYER_STYLE])
_SCRIPT = "\n".join([script("recent", *PLAYER_SCRIPTS), (_HERE / "result.js").read_text("utf-8")])


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src {source_hash(_SCRIPT)}; style-src {source_hash(_STYLE)}; "
    "img-src 'self'; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Nothing but this page's own script and style, and the files of this server."""

DOWNLOADS = {".mp4": "MP4", ".gif": "GIF", ".webp": "WebP", ".png": "PNG strip"}


def result_page(kept: KeptResult, *, keep_seconds: float) -> str:
    """Return the page of a result."""
    best, name = kept.row["top"][0], escape(kept.row["path"])
    top = [ScoredLabel(**one) for one in kept.row["top"]]
    until = datetime.fromtimestamp(kept.created + keep_seconds).astimezone().strftime("%H:%M")
    words = texts_more.KEEP
    life = words["saved"] if kept.is_saved else words["until"].format(time=until)
    keep = "" if kept.is_saved else f'<button type="button" id="save">{words["keep"]}</button>'
    looked = words["looked"].format(model=kept.row["model"], summary=kept.summary)
    headline = words["unlike"] if kept.row.get("unknown") else sentences.headline(top)
    body = f"""<main data-id="{kept.id}" data-label="{escape(best["label"])}" data-score="{best["score"]:.4f}">
<div class="stage">{_player(kept)}</div>
<div class="answer"><p class="name">{name}</p><h1>{escape(headline)}</h1>
<p class="sure">{escape(sentences.confidence(top))}</p>
{_bars(kept)}
<div class="tools"><button type="button" id="copy" data-copied="{words["copied"]}">{words["copy"]}</button>
{_downloads(kept)}{keep}
<button type="button" id="delete" data-sure="{words["sure"]}">{words["delete"]}</button></div>
<p class="small" id="life" role="status" data-saved="{words["saved"]}">{life}</p>
<details><summary>{words["details"]}</summary><p class="small">{escape(looked)}
{escape(" ".join(kept.row["notes"]))}</p></details></div>
</main>"""
    return _document(f"{headline}: {kept.row['path']}", body)


def gone_page(words: str) -> str:
    """Return the page in place of a result that is not there any more."""
    body = (
        f'<main class="gone"><div><h1>{escape(words)}</h1><p><a href="/">{texts_more.KEEP["open"]}</a></p></div></main>'
    )
    return _document(texts_more.KEEP["gone"], body)


def _document(title: str, body: str) -> str:
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>
<body><header><a href="/">nonlocal-video</a><a class="again" href="/">{texts_more.KEEP["own"]}</a></header>
{body}
<section id="recent" aria-labelledby="recent-title" hidden><h2 id="recent-title">{texts_more.KEEP["recent"]}</h2>
<ul></ul>
</section><script>{_SCRIPT}</script></body></html>"""


def _player(kept: KeptResult) -> str:
    if kept.words:
        return f'<p class="empty">{escape(kept.words)}</p>'
    if not kept.maps:
        return f'<p class="empty" data-waiting>{texts_more.KEEP["waiting"]}</p>'
    words = escape(json.dumps({**player_words(), "kept": texts.STAGE["kept"]}))
    return f'<div class="bare" id="stage" data-words="{words}">{player_template()}</div>'


def _bars(kept: KeptResult) -> str:
    rows = "".join(_bar(escape(one["label"]), one["score"]) for one in kept.row["top"])
    return f'<ol class="bars">{rows}</ol>'


def _bar(label: str, score: float) -> str:
    return (
        f'<li><span class="label">{label}</span><span class="score">{escape(sentences.figure(score))}</span>'
        f'<meter min="0" max="1" value="{score:.4f}" aria-label="{label}"></meter></li>'
    )


def _downloads(kept: KeptResult) -> str:
    words = texts_more.KEEP
    rows = [
        (texts_more.MAP_NAMES[name], [(f"{name}{kind}", text) for kind, text in DOWNLOADS.items()])
        for name in kept.maps
    ]
    rows.append((words["scores"], [("result.json", "JSON")]))
    if kept.maps:
        rows.append((words["everything"], [("all.zip", "ZIP")]))
    items = "".join(
        f"<p><span>{title}</span>{''.join(_link(kept, *file) for file in files)}</p>" for title, files in rows
    )
    return f'<details class="menu"><summary>{words["save"]}</summary><div>{items}</div></details>'


def _link(kept: KeptResult, name: str, words: str) -> str:
    return f'<a href="/r/{kept.id}/{name}" download="{escape(f"{kept.name} {name}")}">{words}</a>'
