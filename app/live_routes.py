"""Routes of the Live tab: a browser sends its camera's pictures and asks for answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import anyio.to_thread
import fastapi
from fastapi import APIRouter, Body, Request, Response
from fastapi.routing import APIRoute

from .http_errors import api_error
from .live_sessions import LiveSessions

PREFIX = "/live"


class LiveRoute(APIRoute):
    """Route whose errors are `{"code", "message"}`, as those of the HTTP API."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of FastAPI with these errors."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await answer(request)
            except Exception as error:
                return api_error(error).to_response()

        return handle


def add_live_routes(app: fastapi.FastAPI, sessions: LiveSessions) -> None:
    """Add the routes.

    Args:
        app: Application, without a route for everything else yet.
        sessions: The cameras.
    """
    router = APIRouter(prefix=PREFIX, route_class=LiveRoute, include_in_schema=False)

    @router.post("")
    async def start(
        model: Annotated[str | None, Body()] = None, fast: Annotated[bool, Body()] = True
    ) -> dict[str, Any]:
        return sessions.start(model, fast=fast)

    @router.post("/{id}/pictures")
    async def add(id: str, request: Request) -> dict[str, Any]:
        body = await request.body()  # of a bounded size, see `BodyLimit`
        return await anyio.to_thread.run_sync(sessions.add, id, body)

    @router.post("/{id}/answer")
    async def answer(id: str) -> dict[str, Any]:
        return await sessions.answer(id)

    @router.post("/{id}/end")
    async def end(id: str) -> None:
        sessions.end(id)

    app.include_router(router)
