"""Streams of a visitor's events that do not end while the next event is on its way.

Gradio ends a visitor's stream with the last of the visitor's events, and its browser client opens another for the next
one unless it still believes the first to be open. An event that begins while the news of the end is on its way is told
on no stream, and the page waits for it until a later event happens to open one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sized
from functools import partial

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STREAM = "/gradio_api/queue/data"
BEGIN = "/gradio_api/queue/join"
LINGER_SECONDS = 0.5
"""How long a stream stays open after its last event: pages often begin the next one at once."""
SETTLE_SECONDS = 0.25
"""How long the news of a stream's end may take. Until then, no event is confirmed: the browser would read it first."""
_TICK_SECONDS = 0.02
_END = b'"msg":"close_stream"'
_LOST = b'"session_not_found":true'


class EventStreams:
    """ASGI middleware that ends a stream late, and confirms no event before its visitor knows of the end."""

    def __init__(self, app: ASGIApp, *, under_way: Mapping[str, Sized]) -> None:
        """Wrap an application.

        Args:
            app: Application with Gradio's routes.
            under_way: Gradio's events that have not ended, by session.
        """
        self._app, self._under_way = app, under_way
        self._ended: dict[str, float] = {}
        """Time of the end of streams that ended just now, by session."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = (scope["type"] == "http" and scope["method"], scope.get("path"))
        if request == ("GET", STREAM):
            await self._stream(scope, receive, send)
        elif request == ("POST", BEGIN):
            body = _Body(receive)
            await self._app(scope, body.receive, partial(self._confirm, send, body))
        else:
            await self._app(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = QueryParams(scope["query_string"]).get("session_hash", "")
        stream = _Stream(send)
        await self._told(scope, receive, stream)
        while stream.end is not None and await self._continues(session):
            stream.end = None
            await self._told(scope, receive, stream)
        if stream.end is not None:
            now = time.monotonic()
            self._ended = {name: ended for name, ended in self._ended.items() if ended + SETTLE_SECONDS > now}
            self._ended[session] = now
            await send({**stream.end, "more_body": False})

    async def _told(self, scope: Scope, receive: Receive, stream: _Stream) -> None:
        try:
            await self._app(scope, receive, stream.send)
        except RuntimeError:
            if not stream.is_lost:
                raise
            # Gradio tells the browser of a session that it does not know, and raises an error all the same.
            await stream.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _continues(self, session: str) -> bool:
        """Wait for another event; return whether one has begun."""
        deadline = time.monotonic() + LINGER_SECONDS
        while not (begun := bool(self._under_way.get(session))) and time.monotonic() < deadline:
            await asyncio.sleep(_TICK_SECONDS)
        return begun

    async def _confirm(self, send: Send, body: _Body, message: Message) -> None:
        if message["type"] == "http.response.body" and self._ended:
            ended = self._ended.get(body.session(), 0.0)
            await asyncio.sleep(max(0.0, ended + SETTLE_SECONDS - time.monotonic()))
        await send(message)


class _Stream:
    """One answer that the application gives in parts, each of which it believes to be all."""

    def __init__(self, send: Send) -> None:
        self._send, self._has_begun = send, False
        self.end: Message | None = None
        """The message that tells the browser of the end, held."""
        self.is_lost = False
        """Whether the browser was told that its session is not known."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._has_begun:
                return
            self._has_begun = True
        elif _END in message.get("body", b""):
            self.end = message
            return
        elif self.end is not None:  # the empty body of the end
            return
        self.is_lost = self.is_lost or _LOST in message.get("body", b"")
        await self._send(message)


class _Body:
    """The body of a request, as far as it was read."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._parts = receive, list[bytes]()

    async def receive(self) -> Message:
        message = await self._receive()
        self._parts.append(message.get("body", b""))
        return message

    def session(self) -> str:
        """Return the session that it names."""
        try:
            return str(json.loads(b"".join(self._parts))["session_hash"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""
