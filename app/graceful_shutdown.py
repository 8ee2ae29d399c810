"""A server that finishes requests in progress before it shuts down."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import uvicorn
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .connections import LimitedConnection, check_connections, fit_connections
from .internals import require

DRAIN_WITHIN_SECONDS = 7
"""Maximum seconds to finish requests; with the time to close and to leave Python, less than 15 on a busy machine."""
SETTLE_SECONDS = 1.0
"""Seconds to wait after the last request, as a page fetches the images of its answer at once."""
STOP_WITHIN_SECONDS = 2
"""Maximum seconds for open connections to close; every open page holds one."""
_TICK_SECONDS = 0.1
_ENDING = "The server is ending."
BEGIN = "/queue/join"  # Gradio's first route after every press of a button
API = "/v1/"
_OPEN_PAGE = "/heartbeat/"  # requested by every page; the response lasts until it closes


class GracefulServer(uvicorn.Server):
    """After a signal, starts no new recognition, and closes when all requests are finished or time is up."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        on_signal: Callable[[], Awaitable[None]] | None = None,
        on_deadline: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare a server.

        Args:
            app: Application.
            on_signal: Ends work that no request waits for; begun at the signal, and awaited for as long as requests.
            on_deadline: Called when time is up, so that requests in progress can still be told.
        """
        self._on_signal, self._on_deadline = on_signal, on_deadline
        check_connections()
        LimitedConnection.max_connections = fit_connections()
        require(uvicorn.Server, "shutdown", library="uvicorn", purpose="to end no answer half-way")
        self._app = app
        self._num_in_progress = 0
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",  # uvicorn takes a method for an older interface
            http=LimitedConnection,
            ws="none",
            log_level="warning",
            timeout_graceful_shutdown=STOP_WITHIN_SECONDS,
        )
        super().__init__(config)
        for name in ("should_exit", "force_exit"):
            require(self, name, library="uvicorn", purpose="to end no answer half-way")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish requests in progress, then shut down."""
        ending = None if self._on_signal is None else asyncio.ensure_future(self._on_signal())
        if self._num_in_progress or ending is not None:
            await self._drain(ending)
        if self._num_in_progress:
            self._on_deadline()
            await asyncio.sleep(_TICK_SECONDS)
        await super().shutdown(sockets)

    async def _drain(self, ending: asyncio.Future[None] | None) -> None:
        """Wait for requests in progress; new connections are still accepted, as they fetch images of answers."""
        deadline = time.monotonic() + DRAIN_WITHIN_SECONDS
        busy_at = time.monotonic() if self._num_in_progress else -SETTLE_SECONDS
        while time.monotonic() < deadline and not self.force_exit:
            if self._num_in_progress:
                busy_at = time.monotonic()
            if time.monotonic() >= busy_at + SETTLE_SECONDS and (ending is None or ending.done()):
                break
            await asyncio.sleep(_TICK_SECONDS)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or _OPEN_PAGE in path:
            await self._app(scope, receive, send)
        elif self.should_exit and scope["method"] == "POST" and (path.endswith(BEGIN) or path.startswith(API)):
            # Gradio's page then reports that the server is busy.
            refusal = JSONResponse({"detail": _ENDING}, status_code=503) if path.endswith(BEGIN) else _refusal()
            await refusal(scope, receive, send)
        else:
            self._num_in_progress += 1
            has_begun = False

            async def noted(message: Message) -> None:
                nonlocal has_begun
                has_begun = True
                await send(message)

            try:
                await self._app(scope, receive, noted)
            except asyncio.CancelledError:  # time is up
                if has_begun:
                    raise
                await _refusal()(scope, receive, send)
            finally:
                self._num_in_progress -= 1


def _refusal() -> JSONResponse:
    return JSONResponse({"code": "busy", "message": _ENDING}, status_code=503, headers={"Connection": "close"})
