"""The queue of the HTTP API in front of the network."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio.to_thread

from .http_errors import busy

Result = TypeVar("Result")


class Turns:
    """Lets one request at a time use the network, in order of arrival; a bounded number waits.

    The page has its own queue in Gradio, and the first of both to reach the free network is next. Those who wait there
    count here, and those who wait here count there.
    """

    def __init__(self, max_waiting: int, others: Callable[[], int] = lambda: 0) -> None:
        """Make an empty queue.

        Args:
            max_waiting: Maximum number of waiting requests, those of `others` included.
            others: Returns how many wait elsewhere for the same network.
        """
        self._max_waiting, self._others = max_waiting, others
        self._waiting = 0
        self._turn = asyncio.Semaphore(1)
        self._end = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Number of requests that wait here."""
        return self._waiting

    def check_room(self) -> None:
        """Refuse one more if too many wait.

        Raises:
            ApiError: 503, busy.
        """
        waiting = self._waiting + self._others()
        if waiting >= self._max_waiting:
            raise busy(f"{waiting} requests are waiting, the most that this server lets; try again later.")

    async def run(
        self, function: Callable[[], Result], *, is_wanted: Callable[[], Awaitable[bool]] | None = None
    ) -> Result | None:
        """Run a function in a thread when it is its turn.

        Args:
            function: The work.
            is_wanted: Asked before the work begins; if not, nothing is done.

        Returns:
            The result; None if it is not wanted any more.

        Raises:
            ApiError: 503, busy, or the server is ending.
        """
        self.check_room()
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            if is_wanted is not None and not await is_wanted():
                return None
            return await self._until_the_end(function)
        finally:
            self._turn.release()

    def end(self) -> None:
        """Tell all that wait or are being answered that the server is ending."""
        self._end.set()

    async def _until_the_end(self, function: Callable[[], Result]) -> Result:
        # A thread cannot be ended: it is left alone, and ends with the process.
        work = asyncio.ensure_future(anyio.to_thread.run_sync(function, abandon_on_cancel=True))
        end = asyncio.ensure_future(self._end.wait())
        try:
            await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise busy("The server is ending, and this was not finished; send it again later.")
            return work.result()
        finally:
            end.cancel()
            work.cancel()
