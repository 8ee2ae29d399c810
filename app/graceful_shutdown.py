"""A server that finishes requests in progress before it shuts down."""

from __future__ import annotations

import asyncio
import socket
import time

import uvicorn
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .internals import require

DRAIN_WITHIN_SECONDS = 25
"""Maximum seconds to finish requests; with the time to close, less than the 30 s of Kubernetes and our compose file."""
SETTLE_SECONDS = 1.0
"""Seconds to wait after the last request, as a page fetches the images of its answer at once."""
STOP_WITHIN_SECONDS = 3
"""Maximum seconds for open connections to close; every open page holds one."""
_TICK_SECONDS = 0.1
BEGIN = "/queue/join"  # Gradio's first route after every press of a button
_OPEN_PAGE = "/heartbeat/"  # requested by every page; the response lasts until it closes


class GracefulServer(uvicorn.Server):
    """After a signal, starts no new recognition, and closes when all requests are finished or time is up."""

    def __init__(self, app: ASGIApp) -> None:
        require(uvicorn.Server, "shutdown", library="uvicorn", purpose="to end no answer half-way")
        self._app = app
        self._num_in_progress = 0
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",  # uvicorn takes a method for an older interface
            log_level="warning",
            timeout_graceful_shutdown=STOP_WITHIN_SECONDS,
        )
        super().__init__(config)
        for name in ("should_exit", "force_exit"):
            require(self, name, library="uvicorn", purpose="to end no answer half-way")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish requests in progress, then shut down."""
        if self._num_in_progress:
            await self._drain()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        """Wait for requests in progress; new connections are still accepted, as they fetch images of answers."""
        deadline = time.monotonic() + DRAIN_WITHIN_SECONDS
        busy_at = time.monotonic()
        while time.monotonic() < min(deadline, busy_at + SETTLE_SECONDS) and not self.force_exit:
            await asyncio.sleep(_TICK_SECONDS)
            if self._num_in_progress:
                busy_at = time.monotonic()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or _OPEN_PAGE in path:
            await self._app(scope, receive, send)
        elif self.should_exit and path.endswith(BEGIN):
            # Gradio's page then reports that the server is busy.
            await JSONResponse({"detail": "The server is ending."}, status_code=503)(scope, receive, send)
        else:
            self._num_in_progress += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._num_in_progress -= 1
