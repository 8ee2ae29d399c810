"""Streams of a visitor's events that do not end while the next event is on its way.

Gradio ends a visitor's stream with the last of the visitor's events, and its browser client opens another for the next
one unless it still believes the first to be open. An event that begins while the news of the end is on its way is told
on no stream, and the page waits for it until a later event happens to open one.

Gradio's clients, in browsers and in Python, close the connection as soon as they have read the news. So the connection
is left open until they do, and no event of theirs is confirmed before.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sized
from contextlib import suppress
from functools import partial

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STREAM = "/gradio_api/queue/data"
BEGIN = "/gradio_api/queue/join"
LINGER_SECONDS = 0.5
"""Seconds that a stream stays open after its last event: pages often begin the next one at once."""
NEWS_SECONDS = 5.0
"""Seconds that the news of a stream's end may take. A program that waits for the end of the connection gets it then."""
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
        self._ending: dict[str, asyncio.Event] = {}
        """Set once the visitor knows of the end, by session, for streams that are ending."""

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
            await self._end(session, stream.end, receive, send)

    async def _end(self, session: str, end: Message, receive: Receive, send: Send) -> None:
        """Tell of the end of a stream, and wait until the visitor has closed it."""
        known = self._ending[session] = asyncio.Event()
        try:
            await send({**end, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(NEWS_SECONDS):
                    while (await receive())["type"] != "http.disconnect":
                        pass
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            known.set()
            if self._ending[session] is known:
                del self._ending[session]

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
        if message["type"] == "http.response.body" and (known := self._ending.get(body.session())):
            await known.wait()
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
    """The part of a request's body that was read."""

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
