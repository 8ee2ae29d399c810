"""State kept for visitors, by the name of their session: bounded in number, in names, and in messages."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection
from typing import Any

import fastapi
import gradio as gr
from gradio.utils import LRUCache

MAX_MESSAGES = 500
"""Maximum number of messages that wait for one visitor to listen; the oldest are dropped."""
MAX_MESSAGE_BYTES = 64 * 1024**2
"""Maximum size of the messages that wait for all visitors; those of who has not listened for the longest time go."""
_NAME = re.compile(r"[\w-]{1,100}", re.ASCII)


class SessionNameError(fastapi.HTTPException, gr.Error):
    """A session has a name that no browser gives."""

    def __init__(self) -> None:
        """Say the rule, to a program and on the page."""
        words = "The name of a session should have 1 to 100 letters, digits, '-' and '_'."
        gr.Error.__init__(self, words, print_exception=False)
        fastapi.HTTPException.__init__(self, 422, words)


class Remembered(LRUCache[str, Any]):
    """Values by session or upload. Above the limit the oldest is forgotten that has nothing under way."""

    def __init__(
        self,
        max_size: int,
        *,
        under_way: Callable[[], Collection[str]] = lambda: (),
        on_forget: Callable[[str], None] = lambda session: None,
    ) -> None:
        """Begin without any.

        Args:
            max_size: Maximum number.
            under_way: Returns the sessions that wait for something, or for which something is done.
            on_forget: Called with the name of each session that is forgotten.
        """
        super().__init__(max_size)
        self._under_way, self._on_forget = under_way, on_forget

    def __setitem__(self, name: str, value: Any) -> None:
        """Remember a value.

        Raises:
            SessionNameError: The name is too long, or has other letters.
        """
        if not _NAME.fullmatch(name):
            raise SessionNameError
        super().__setitem__(name, value)

    def popitem(self, last: bool = True) -> tuple[str, Any]:
        """Forget one: the last, or the first that has nothing under way."""
        if last:
            return super().popitem()
        spared = self._under_way()
        name = next((one for one in self if one not in spared), next(iter(self)))
        value = self.pop(name)
        self._on_forget(name)
        return name, value


class Signals(Remembered):
    """Events of asyncio, each made when it is first asked for."""

    def __missing__(self, name: str) -> asyncio.Event:
        """Make an event."""
        self[name] = signal = asyncio.Event()
        return signal


class Recent(set[str]):
    """A set of bounded size; above it, any one is dropped."""

    def add(self, name: str) -> None:
        """Add a name."""
        while len(self) >= MAX_MESSAGES:
            self.pop()
        super().add(name)


class RecentOfEach(Remembered):
    """Sets of bounded size."""

    def __setitem__(self, name: str, value: set[str]) -> None:
        """Remember a set."""
        super().__setitem__(name, Recent(value))


class Mailboxes(Remembered):
    """The messages for all visitors."""

    def __setitem__(self, name: str, value: Mailbox) -> None:
        """Remember a visitor's messages."""
        value.on_added = self.make_room
        super().__setitem__(name, value)

    def make_room(self) -> None:
        """Drop messages until they have at most `MAX_MESSAGE_BYTES`."""
        while sum(box.num_bytes for box in self.values()) > MAX_MESSAGE_BYTES:
            min((box for box in self.values() if not box.empty()), key=lambda box: box.heard).get_nowait()


class Mailbox(asyncio.Queue[Any]):
    """Messages for one visitor; when nobody listens, the oldest are dropped."""

    def __init__(self) -> None:
        """Begin without messages."""
        super().__init__()
        self.heard = time.monotonic()
        """Return when somebody last listened."""
        self.num_bytes = 0
        """Size of the messages, as text."""
        self.on_added: Callable[[], None] = lambda: None

    async def get(self) -> Any:
        """Wait for a message and take it."""
        self.heard = time.monotonic()
        return await super().get()

    def put_nowait(self, item: Any) -> None:
        """Add a message."""
        if self.qsize() >= MAX_MESSAGES:
            self.get_nowait()
        super().put_nowait(item)
        self.on_added()

    def _put(self, item: Any) -> None:
        size = len(repr(item))
        self.num_bytes += size
        super()._put((item, size))

    def _get(self) -> Any:
        item, size = super()._get()
        self.num_bytes -= size
        return item
