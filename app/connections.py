"""Connections with limits: how long a request's head may take, and how many there are."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .internals import require

HEAD_SECONDS = 10.0
"""Maximum seconds until the head of a request is complete."""
MAX_CONNECTIONS = 1000
"""Maximum number of open connections; every open page holds one or two."""
_PURPOSE = "to end connections that say nothing"


class LimitedConnection(H11Protocol):
    """Connection of uvicorn that ends if no request's head comes in time, or if there are too many."""

    head_seconds = HEAD_SECONDS
    max_connections = MAX_CONNECTIONS
    _head_timer: asyncio.TimerHandle | None = None

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

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that was idle, unless the next request has come and is still unread.

        On a busy server much time passes between the clock and this: closing then resets the connection, and a client
        whose request is under way gets an error instead of an answer.
        """
        if not self._has_unread():
            super().timeout_keep_alive_handler()

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
            self.transport.close()

    def _has_unread(self) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self.transport.get_extra_info("socket"), selectors.EVENT_READ)
            return bool(selector.select(0))


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
    ):
        require(H11Protocol, name, library="uvicorn", purpose=_PURPOSE)
