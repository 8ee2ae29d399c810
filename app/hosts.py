"""Names that the server answers to; pages of other sites may ask it for nothing."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_METHODS = ("GET", "HEAD")
_CHANGING_GETS = ("/logout",)
"""Paths that change something by GET."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"([\w.-]+|\[[\w:.%]+\])(:\d{0,5})?", re.ASCII)
"""A name or an address, with a port. Readers differ about the name of anything longer, such as one with a user."""


class OwnHosts:
    """ASGI middleware that refuses names of other hosts, and requests that pages of other sites make.

    A page of another site whose name leads to this server (DNS rebinding) could otherwise read everything: the browser
    takes both for one site. Loopback names and IP addresses cannot be such names.
    """

    def __init__(self, app: ASGIApp, *, allowed: Collection[str] = ()) -> None:
        """Wrap an application.

        Args:
            app: Application.
            allowed: Names of this server beside loopback names and IP addresses, without port.
        """
        self._app = app
        self._allowed = {name.lower().rstrip(".") for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        named = [*headers.getlist("host"), *headers.getlist("x-forwarded-host")]
        for name in named:
            if not self._is_own(name):
                await _not_own(name)(scope, receive, send)
                return
        if self._is_foreign(scope, headers, named):
            await _refusal("cross_site", "A page of another site asked for this; it is refused.")(scope, receive, send)
            return

        async def without_permissions(message: Message) -> None:
            if message["type"] == "http.response.start":  # Gradio permits pages of other ports of this machine
                kept = [pair for pair in message["headers"] if not pair[0].lower().startswith(b"access-control-")]
                message = {**message, "headers": kept}
            await send(message)

        await self._app(scope, receive, without_permissions)

    def _is_own(self, host: str) -> bool:
        if not _HOST.fullmatch(host):
            return False
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._allowed:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_foreign(self, scope: Scope, headers: Headers, named: list[str]) -> bool:
        """Whether a browser says that another site's page makes this request, which changes something."""
        site = headers.get("sec-fetch-site")
        if scope["method"] in _SAFE_METHODS:
            if scope["path"].rstrip("/") in _CHANGING_GETS:
                return site in ("cross-site", "same-site")
            return site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate"
        origin = headers.get("origin")
        if origin is None:
            return site not in (None, "same-origin", "none")
        try:
            address = urlsplit(origin)
            from_here = {_with_port(name, address.scheme) for name in named}
            is_own = _with_port(address.netloc, address.scheme) in from_here or address.hostname in self._allowed
        except ValueError:
            return True
        return not (is_own and address.scheme in _DEFAULT_PORTS)


def _with_port(host: str, scheme: str) -> tuple[str, int | None]:
    address = urlsplit(f"//{host}")
    return address.hostname or "", address.port or _DEFAULT_PORTS.get(scheme)


def _not_own(host: str) -> JSONResponse:
    name = host[:100]
    return _refusal(
        "unknown_host",
        f"This server does not know the name {name!r}. If it is one of its own, start it with --allowed-host NAME.",
    )


def _refusal(code: str, message: str) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status_code=403)
