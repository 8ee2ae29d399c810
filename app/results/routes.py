"""Routes of the results: /r/ID is the page, /r/ID/NAME a file of it, DELETE ends it."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread
import fastapi
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

from .. import texts_more
from .answer import answer_of
from .page import CONTENT_SECURITY_POLICY, gone_page, result_page
from .store import ResultGoneError, Results, ResultsFullError

PREFIX = "/r"
ANSWER = "answer.json"
"""Fields that the page shows again after a reload."""
MAX_ASKED = 50
"""Maximum number of results that one request asks about."""
GONE, FULL = texts_more.KEEP["expired"], texts_more.KEEP["full"]
_HEADERS = {
    "Cache-Control": "private, no-cache",  # a deleted result is gone from the next look on
    "Referrer-Policy": "no-referrer",  # the address is the key
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_PAGE_HEADERS = _HEADERS | {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
Answer = TypeVar("Answer")


def add_result_routes(app: fastapi.FastAPI, results: Results) -> None:
    """Add the routes to an application that has no route for everything else yet."""
    router = fastapi.APIRouter(prefix=PREFIX, include_in_schema=False)

    @router.get("")
    async def which(ids: str = "") -> Any:
        found = results.existing(ids.split(",")[:MAX_ASKED])
        return JSONResponse([_in_short(kept.id, kept.row) for kept in found], headers=_HEADERS)

    @router.get("/{id}")
    async def show(id: str) -> Any:
        try:
            kept = results.get(id)
        except ResultGoneError:
            return HTMLResponse(gone_page(GONE), status_code=404, headers=_PAGE_HEADERS)
        return HTMLResponse(result_page(kept, keep_seconds=results.keep_seconds), headers=_PAGE_HEADERS)

    @router.get("/{id}/{name}")
    async def download(id: str, name: str) -> Any:
        def send() -> Any:
            kept = results.get(id)
            if name == ANSWER:
                return JSONResponse(answer_of(kept), headers=_HEADERS)
            path = results.file(id, name)
            kind = mimetypes.guess_type(name)[0]
            return FileResponse(
                path,
                media_type=kind,
                filename=f"{kept.name} {name}",
                content_disposition_type="inline",
                headers=_HEADERS,
            )

        return await _answered(send)

    @router.post("/{id}/save")
    async def save(id: str) -> Any:
        return await _answered(partial(_done, results.save, id))

    @router.delete("/{id}")
    async def delete(id: str) -> Any:
        return await _answered(partial(_done, results.delete, id))

    app.include_router(router)


async def _answered(work: Callable[[], Answer]) -> Answer | JSONResponse:
    try:
        return await anyio.to_thread.run_sync(work)
    except ResultGoneError:
        return _refusal(404, "not_found", GONE)
    except ResultsFullError:
        return _refusal(409, "full", FULL)


def _done(act: Callable[[str], None], id: str) -> fastapi.Response:
    act(id)
    return fastapi.Response(status_code=204, headers=_HEADERS)


def _in_short(id: str, row: dict[str, Any]) -> dict[str, Any]:
    best = row["top"][0]
    return {"id": id, "name": row["path"], "label": best["label"], "score": best["score"]}


def _refusal(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status_code=status, headers=_HEADERS)
