"""Addresses of files that name no path: the server's folders go by made-up names to browsers and programs."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "/gradio_api/"
FILE, UPLOAD = f"{PREFIX}file=", f"{PREFIX}upload"
PAGES = ("/", "/config", "/config/")
REWRITTEN = ("application/json", "text/event-stream", "text/html")
STREAM = "text/event-stream"
NAMES_OF_PATHS = ("path", "paths")
"""Fields of what clients send that name files; the text of other fields is never taken for a path."""


class FileAddresses:
    """ASGI middleware that names folders of the server by made-up names in Gradio's answers, and knows them again.

    Gradio names a file by its path: in the address, and in what the page and programs send back. Here, a path begins
    with 22 random characters in place of the folder.
    """

    def __init__(self, app: ASGIApp, *, folders: Iterable[Path]) -> None:
        """Wrap an application.

        Args:
            app: Application with Gradio's routes.
            folders: Folders that hold what Gradio sends.
        """
        self._app = app
        self._folders = {f"/{secrets.token_urlsafe(16)}": str(folder) for folder in {*folders}}
        self._names: dict[bytes, bytes] = {}
        """The made-up names, by every spelling of their folders."""
        for name, folder in self._folders.items():
            for path in (folder, str(Path(folder).resolve())):
                for spelling in (path, quote(path), json.dumps(path)[1:-1], json.dumps(path, ensure_ascii=False)[1:-1]):
                    self._names[spelling.encode()] = name.encode()
        longest_first = sorted(self._names, key=len, reverse=True)
        self._spellings = re.compile(rb"(?:%b)(?![\w-])" % b"|".join(map(re.escape, longest_first)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path in PAGES or path.startswith(PREFIX)):
            await self._app(scope, receive, send)
            return
        if path.startswith(FILE):
            scope = {**scope, "path": FILE + self._real(path.removeprefix(FILE))}
        elif scope["method"] == "POST" and path.rstrip("/") != UPLOAD:
            receive = partial(self._receive, receive)
        await self._app(scope, receive, _Answer(self, send, is_file=path.startswith(FILE)).send)

    def hidden(self, text: bytes) -> bytes:
        """Return text with made-up names in place of folders."""
        return self._spellings.sub(lambda found: self._names[found[0]], text)

    def _real(self, path: str) -> str:
        name, slash, rest = path[1:].partition("/")
        return self._folders.get(f"/{name}", f"/{name}") + slash + rest if path.startswith("/") else path

    async def _receive(self, receive: Receive) -> Message:
        """Return a body as a whole, with folders in place of made-up names."""
        message, parts = await receive(), list[bytes]()
        while message["type"] == "http.request":
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return {"type": "http.request", "body": self._with_paths(b"".join(parts)), "more_body": False}
            message = await receive()
        return message

    def _with_paths(self, body: bytes) -> bytes:
        if not any(name.encode() in body for name in self._folders):
            return body
        try:
            return json.dumps(self._with_real(json.loads(body))).encode()
        except (ValueError, RecursionError):  # Gradio says what is wrong with it
            return body

    def _with_real(self, value: Any, *, is_path: bool = False) -> Any:
        if isinstance(value, dict):
            return {name: self._with_real(held, is_path=name in NAMES_OF_PATHS) for name, held in value.items()}
        if isinstance(value, list):
            return [self._with_real(held, is_path=is_path) for held in value]
        return self._real(value) if is_path and isinstance(value, str) else value


class _Answer:
    """An answer whose head waits for the length of its body; a stream's does not."""

    def __init__(self, addresses: FileAddresses, send: Send, *, is_file: bool) -> None:
        self._addresses, self._send, self._is_file = addresses, send, is_file
        self._head: Message | None = None
        self._is_plain = False
        self._parts: list[bytes] = []

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            kind = headers.get("content-type", "").partition(";")[0]
            is_sent = self._is_file and message["status"] < 400  # a file's content is its own
            self._is_plain = is_sent or kind not in REWRITTEN or "content-encoding" in headers
            if not self._is_plain and kind != STREAM:
                self._head = message
                return
        elif message["type"] == "http.response.body" and not self._is_plain:
            if self._head is None:
                message = {**message, "body": self._addresses.hidden(message.get("body", b""))}
            else:
                self._parts.append(message.get("body", b""))
                if message.get("more_body", False):
                    return
                await self._send_whole(self._addresses.hidden(b"".join(self._parts)))
                return
        await self._send(message)

    async def _send_whole(self, body: bytes) -> None:
        assert self._head is not None
        headers = MutableHeaders(raw=list(self._head["headers"]))
        if body and "content-length" in headers:  # the answer to HEAD has none
            headers["content-length"] = str(len(body))
        await self._send({**self._head, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})
