"""Connections with limits: how long a request's head and the reading of an answer may take, and how many there are."""

from __future__ import annotations

import asyncio
import json
import selectors
from typing import Any

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .internals import require

HEAD_SECONDS = 10.0
"""Maximum seconds until the head of a request is complete."""
READ_SECONDS = 60.0
"""Maximum seconds in which a client takes nothing of an answer that waits for it."""
MAX_CONNECTIONS = 1000
"""Maximum number of open connections; every open page holds one or two."""
FILES_BESIDES = 200
"""Number of open files that the server needs beside connections and the files that they read."""
_PURPOSE = "to end connections that say nothing"
_NO_HTTP = {"code": "invalid_request", "message": "This is no valid HTTP request."}


class LimitedConnection(H11Protocol):
    """Connection of uvicorn that ends if no request's head comes in time, or if there are too many.

    It also ends if the client does not read what was answered.
    """

    head_seconds = HEAD_SECONDS
    read_seconds = READ_SECONDS
    max_connections = MAX_CONNECTIONS
    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Stop waiting when a request's head is complete."""
        super().handle_events()
        if self._is_busy():
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        if not self._is_busy():
            self._wait_for_head()
        self._watch_the_rest()

    def pause_writing(self) -> None:
        """Begin to watch whether the client reads."""
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        """Watch no more: it does."""
        self._stop_watching()
        super().resume_writing()
        self._watch_the_rest()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the form of all errors; after an answer has begun, there is no way to say so."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(_NO_HTTP).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self._close()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that was idle, unless the next request has come and is still unread.

        On a busy server much time passes between the clock and this: closing then resets the connection, and a client
        whose request is under way gets an error instead of an answer.
        """
        if not self._has_unread():
            super().timeout_keep_alive_handler()
            self._watch_the_rest()

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._head_timer = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if self._is_busy():
            return
        has_begun = self.conn.their_state is not h11.IDLE or bool(self.conn.trailing_data[0])
        if not has_begun and self._has_unread():
            self._wait_for_head()
        else:
            self._close()

    def _close(self) -> None:
        self.transport.close()
        self._watch_the_rest()

    def _watch_the_rest(self) -> None:
        """Watch a connection that ends when its buffer is empty."""
        if self.transport.is_closing():
            self._watch_reading()

    def _watch_reading(self) -> None:
        """End the connection if in `read_seconds` nothing leaves the buffer; meanwhile nothing may be added to it."""
        self._stop_watching()
        if (waiting := self.transport.get_write_buffer_size()) > 0:
            self._read_timer = self.loop.call_later(self.read_seconds, self._check_reading, waiting)

    def _check_reading(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._watch_reading()
        else:
            self.transport.abort()

    def _stop_watching(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _has_unread(self) -> bool:
        if self.transport.is_closing():  # its socket may be gone, and the news of that still on its way
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self.transport.get_extra_info("socket"), selectors.EVENT_READ)
            return bool(selector.select(0))


def fit_connections() -> int:
    """Raise this process's limit of open files to what `MAX_CONNECTIONS` need, and return how many fit.

    Without room, the loop would try again and again to accept the next one, and log each failure.
    """
    if resource is None:
        return MAX_CONNECTIONS
    needed = 2 * MAX_CONNECTIONS + FILES_BESIDES
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < needed:
        limit = needed if most == resource.RLIM_INFINITY else min(needed, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(min(MAX_CONNECTIONS, (limit - FILES_BESIDES) // 2), 1)


def check_connections() -> None:
    """Check that uvicorn still has the methods that `LimitedConnection` extends.

    Raises:
        UsageError: One is missing.
    """
    for name in (
        "connection_made",
        "connection_lost",
        "handle_events",
        "on_response_complete",
        "timeout_keep_alive_handler",
        "pause_writing",
        "resume_writing",
        "send_400_response",
    ):
        require(H11Protocol, name, library="uvicorn", purpose=_PURPOSE)
