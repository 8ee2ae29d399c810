"""Limits of what a request may send, and of how long it may take for it, before anything reads it."""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
import tempfile

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .memory_left import is_short
from .refusals import disk_full, memory_short, refused, send_refusal, too_large

MAX_BODY_BYTES = 1024**2
"""Maximum size of a body that is not an upload."""
IDLE_SECONDS = 60.0
"""Maximum seconds between two parts of a body."""
SPARE_BYTES = 256 * 1024**2
"""Space that uploads leave free on the disk, for answers and for everybody else."""
_BOUNDARY = re.compile(r';\s*boundary="?([^";]{1,200})', re.IGNORECASE)
_AFTER_FORM_BYTES = 1000  # a line break, and what some clients send after it
PAGE_UPLOAD = "/gradio_api/upload"
API = "/v1/"


class BodyLimit:
    """ASGI middleware that refuses large bodies by their announced length, cuts longer ones, and slow ones."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_upload_bytes: int,
        max_files: int = 1,
        max_body_bytes: int = MAX_BODY_BYTES,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        """Wrap an application.

        Args:
            app: Application.
            max_upload_bytes: Maximum size of one clip.
            max_files: Maximum number of clips of that size in one upload of the page; it sends a folder as one.
            max_body_bytes: Maximum size of other bodies, and of the form around a clip.
            idle_seconds: Maximum seconds between two parts of a body.
        """
        self._app, self._idle_seconds = app, idle_seconds
        self._max_body = max_body_bytes
        self._max_form = max_upload_bytes + max_body_bytes
        self._max_page_upload = max_files * max_upload_bytes + max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit, headers = self._limit(scope), Headers(scope=scope)
        announced = headers.get("content-length", "0")
        if "content-length" in headers and "transfer-encoding" in headers:  # another reader may take the other one
            words = "The body has a Content-Length and a Transfer-Encoding; send one of them."
            await send_refusal(refused(400, "invalid_request", words), scope, receive, send)
            return
        if not (announced.isascii() and announced.isdigit()) or len(announced) > 20 or int(announced) > limit:
            await send_refusal(too_large(limit), scope, receive, send)
            return
        # A clip is there twice for a moment: as it comes, and as it is read.
        if limit > self._max_body and not _has_room(2 * int(announced)):
            await send_refusal(disk_full(), scope, receive, send)
            return
        if limit > self._max_body and is_short():
            await send_refusal(memory_short(), scope, receive, send)
            return
        body = _Body(receive, send, limit, self._idle_seconds, form_end=_end_of_form(headers))
        try:
            await self._app(scope, body.receive, body.send)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                body.refusal = disk_full()
            elif body.refusal is None:
                await body.send_held()
                raise
        await body.send_held()
        if body.refusal is not None and not body.has_answered:
            await send_refusal(body.refusal, scope, receive, send, linger=body.is_coming)

    def _limit(self, scope: Scope) -> int:
        path = scope["path"].rstrip("/")
        if scope["method"] == "POST" and path == PAGE_UPLOAD:
            return self._max_page_upload
        if scope["method"] == "POST" and path.startswith(API):
            return self._max_form
        return self._max_body


class _Body:
    """One body: counted, timed, and cut where it is too long or too slow."""

    def __init__(self, receive: Receive, send: Send, limit: int, idle_seconds: float, *, form_end: bytes = b"") -> None:
        self._receive, self._send = receive, send
        self._limit, self._idle_seconds = limit, idle_seconds
        self._form_end, self._tail = form_end, b""
        self._size, self._is_complete = 0, False
        self._held: list[Message] = []
        self.refusal: JSONResponse | None = None
        self.has_answered = False

    @property
    def is_coming(self) -> bool:
        """Whether there is more of it, as far as the sender has not gone silent."""
        return not self._is_complete and (self.refusal is None or self.refusal.status_code != 408)

    async def receive(self) -> Message:
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if self._is_complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._idle_seconds)
        except TimeoutError:
            words = f"Nothing came for {self._idle_seconds:g} seconds; send it again."
            return self._refuse(refused(408, "too_slow", words))
        self._size += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._size > self._limit:
            return self._refuse(too_large(self._limit))
        if self._form_end and message["type"] == "http.request":
            self._tail = (self._tail + message.get("body", b""))[-len(self._form_end) - _AFTER_FORM_BYTES :]
            if self._is_complete and self._form_end not in self._tail:
                words = "The form ends before its last boundary; send it again."
                return self._refuse(refused(422, "invalid_request", words))
        return message

    async def send(self, message: Message) -> None:
        """Pass on an answer; one of status 500 is held until it is known what it was about.

        The server ends the connection after it, so it says so: a client would else send the next request there.
        """
        if message.get("status") == 500:
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        if self._held or message.get("status") == 500:
            self._held.append(message)
        elif self.refusal is None or self.has_answered:
            self.has_answered = True
            await self._send(message)

    async def send_held(self) -> None:
        """Pass on what was held, unless there is a better answer."""
        if self.refusal is None or self.has_answered:
            for message in self._held:
                self.has_answered = True
                await self._send(message)
        self._held.clear()

    def _refuse(self, refusal: JSONResponse) -> Message:
        """Let the application believe that the sender has left."""
        self.refusal = refusal
        return {"type": "http.disconnect"}


def _end_of_form(headers: Headers) -> bytes:
    """Return the bytes with which a form ends; none if the body is no form, or names no boundary."""
    kind = headers.get("content-type", "")
    found = _BOUNDARY.search(kind) if kind.lower().startswith("multipart/form-data") else None
    return b"" if found is None else f"--{found[1]}--".encode("latin-1")


def _has_room(num_bytes: int) -> bool:
    return shutil.disk_usage(tempfile.gettempdir()).free >= num_bytes + SPARE_BYTES
