"""A server that answers what it was asked before it ends."""

from __future__ import annotations

import asyncio
import socket
import time

import uvicorn
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .internals import require

DRAIN_WITHIN_SECONDS = 25
"""With what closing takes, less than the 30 seconds that Kubernetes and our compose file give."""
SETTLE_SECONDS = 1.0
"""A page that has its answer asks for the pictures in it at once."""
STOP_WITHIN_SECONDS = 3
"""How long open connections may take to end; every open page holds one."""
_TICK_SECONDS = 0.1
BEGIN = "/queue/join"  # Gradio's route that every press of a button asks first
_OPEN_PAGE = "/heartbeat/"  # asked by every page, answered until it closes


class GracefulServer(uvicorn.Server):
    """After a signal it begins no recognition, and closes when all that was in progress is answered or too late."""

    def __init__(self, app: ASGIApp) -> None:
        require(uvicorn.Server, "shutdown", library="uvicorn", purpose="to end no answer half-way")
        self._app = app
        self._num_in_progress = 0
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",  # uvicorn takes a method for something older
            log_level="warning",
            timeout_graceful_shutdown=STOP_WITHIN_SECONDS,
        )
        super().__init__(config)
        for name in ("should_exit", "force_exit"):
            require(self, name, library="uvicorn", purpose="to end no answer half-way")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._num_in_progress:
            await self._drain()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        """Wait; new connections are still taken meanwhile, because an answer's pictures come over them."""
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
            # Gradio's page says then that the server is busy, and to try again.
            await JSONResponse({"detail": "The server is ending."}, status_code=503)(scope, receive, send)
        else:
            self._num_in_progress += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._num_in_progress -= 1
