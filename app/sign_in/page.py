"""The sign-in: a page of its own that asks for nothing else, so that a stranger needs no other file of the server."""

from __future__ import annotations

from html import escape
from pathlib import Path

from starlette.responses import HTMLResponse

from .. import texts, texts_more
from ..content_policy import source_hash

_HERE = Path(__file__).parent
_STYLE = (_HERE / "sign_in.css").read_text("utf-8")
_SCRIPT = (_HERE / "sign_in.js").read_text("utf-8")


_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {source_hash(_SCRIPT)}; style-src {source_hash(_STYLE)}; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
}


def sign_in_page() -> HTMLResponse:
    """Return the page; once signed in, it loads again the address that was asked for."""
    words = {name: escape(text) for name, text in texts_more.SIGN_IN.items()}
    document = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{words["title"]}</title>
<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">
<style>{_STYLE}</style></head>
<body><main><h1>nonlocal-video</h1><p class="introduction">{escape(texts.INTRODUCTION)}</p>
<form method="post" action="login" data-wrong="{words["wrong"]}" data-failed="{words["failed"]}">
<label>{words["user"]}<input name="username" autocomplete="username" autocapitalize="none" spellcheck="false" required
autofocus></label>
<label>{words["password"]}<input name="password" type="password" autocomplete="current-password" required></label>
<p class="problem" role="alert"></p>
<button>{words["enter"]}</button></form></main><script>{_SCRIPT}</script></body></html>"""
    return HTMLResponse(document, headers=_HEADERS)
