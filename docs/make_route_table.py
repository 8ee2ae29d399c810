"""Writes the table of the server's routes in docs/security.md, from what the server answers.

python docs/make_route_table.py
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastapi
import gradio
from starlette.routing import Route

PAGE = Path(__file__).resolve().parent / "security.md"
MIB = 1024**2
MAX_UPLOAD_MB = 1
AUTH = ("ann", "secret")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
_SECONDS = 30.0


def page_with_table(text: str, app: fastapi.FastAPI) -> str:
    """Return the page's text with the routes between its markers as the server answers.

    Args:
        text: The page.
        app: The server, made by `create_app` with `AUTH` and `MAX_UPLOAD_MB`.
    """
    rows = [[f"`{path}`", ", ".join(methods), *rule] for path, methods, rule in rules(app)]
    head = ["route", "methods", "password or session", "asked by another site's page", "largest body"]
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
    table = "\n".join([f"With Gradio {gradio.__version__}:", "", *lines])
    return re.sub(
        r"<!-- routes -->\n.*?<!-- /routes -->",
        lambda _: f"<!-- routes -->\n{table}\n<!-- /routes -->",
        text,
        flags=re.DOTALL,
    )


def rules(app: fastapi.FastAPI) -> list[tuple[str, list[str], list[str]]]:
    """Return each route with its methods, and with the rule that holds for them, in words; sorted."""
    methods_of: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for path, methods in routes(app):
        for method in methods:
            rule = asyncio.run(_rule(app, method, re.sub(r"{.*?}", "x", path)))
            methods_of.setdefault((path, rule), []).append(method)
    return sorted((path, sorted(set(methods)), list(rule)) for (path, rule), methods in methods_of.items())


def routes(app: fastapi.FastAPI) -> list[tuple[str, list[str]]]:
    """Return the routes of the server, Gradio's own included, with their methods."""
    waiting, found = list(app.routes), []
    while waiting:
        route = waiting.pop()
        if isinstance(route, Route):
            found.append((route.path, sorted(route.methods or ())))
        else:  # a mount; or a router that was included, in releases of FastAPI that keep them whole
            waiting += getattr(getattr(route, "original_router", route), "routes", ())
    return found


async def _rule(app: fastapi.FastAPI, method: str, path: str) -> tuple[str, str, str]:
    """Ask for a route as a stranger, as another site's page, and with bodies that are too large."""
    is_safe = method in ("GET", "HEAD")
    stranger = await _status(app, method, path, {})
    signs_in = method == "POST" and path.rstrip("/") == "/login"
    session = "is the sign-in" if signs_in else "needed" if stranger == 401 else "not needed"
    fetched = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    foreign = fetched if is_safe else {"origin": "https://other.example"}
    linked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    refused = await _status(app, method, path, foreign) == 403
    site = "answered" if not refused else "refused"
    if is_safe and refused and await _status(app, method, path, linked) != 403:
        site = "refused; a link is answered"
    return session, site, await _largest_body(app, method, path)


async def _largest_body(app: fastapi.FastAPI, method: str, path: str) -> str:
    """Return the first of the server's limits above which an announced body is refused at once."""
    limits = {"1 MiB": MIB, "a clip": (MAX_UPLOAD_MB + 1) * MIB, "20 clips": (20 * MAX_UPLOAD_MB + 1) * MIB}
    for words, limit in limits.items():
        if await _status(app, method, path, {"content-length": str(limit + 1)}) == 413:
            return words
    raise AssertionError(f"{method} {path} has no limit.")


async def _status(app: fastapi.FastAPI, method: str, path: str, headers: Mapping[str, str]) -> int:
    """Return the status of the answer to a request whose body never comes."""
    found: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "app": app,
        "client": ("192.0.2.1", 1), "server": ("127.0.0.1", 80),
        "headers": [(b"host", b"127.0.0.1"), *((a.encode(), b.encode()) for a, b in headers.items())],
    }  # fmt: skip
    try:
        await asyncio.wait_for(app(scope, receive, send), _SECONDS)
    except Exception:  # a route that misses its body
        return found[0] if found else 500
    return found[0] if found else 0


def main() -> None:
    import nonlocal_video as nlv
    from nonlocal_video.app.application import create_app

    app = create_app([nlv.load("default", device="cpu")], auth=AUTH, max_upload_mb=MAX_UPLOAD_MB)
    PAGE.write_text(page_with_table(PAGE.read_text("utf-8"), app), "utf-8")


if __name__ == "__main__":
    main()
