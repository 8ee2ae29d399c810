"""The door of the server: who may ask for what, and how often a password may be wrong."""

from __future__ import annotations

import base64
import binascii
import hmac
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nonlocal_video.errors import UsageError

from .sign_in.page import sign_in_page

LOGIN = "/login"
HEALTH = "/healthz"
HOME = "/"
OPEN = (HEALTH, "/favicon.ico", "/manifest.json", "/robots.txt")
"""Paths without a password, beside the sign-in: the home page of those who have not signed in. Browsers ask for the
manifest, the name and icon of a page, without cookies."""
LEAST_TOKEN_LENGTH = 20
MAX_WRONG = 10
"""Number of wrong passwords from one address before it has to wait."""
MAX_WRONG_OVERALL = 20
"""Number of wrong passwords from all addresses together before everybody has to wait."""
FIRST_WAIT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 3600.0
MAX_ADDRESSES = 10_000
"""Maximum number of remembered addresses, at about 0.2 kB each."""
_EVERYBODY = ""
_RESULT = re.compile(r"/r/([\w-]+)", re.ASCII)
"""Page of a result. A browser without a session is led to the sign-in, which shows the result afterwards."""


class Attempts:
    """Counts wrong passwords by address and overall; above the limit each one doubles the time to wait."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Begin without any.

        Args:
            now: Clock, in seconds.
        """
        self._now = now
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # address: count, time of the last one

    def seconds_to_wait(self, address: str) -> float:
        """Return the seconds until this address may try again; 0 if it may now."""
        return max(self._wait(address, MAX_WRONG), self._wait(_EVERYBODY, MAX_WRONG_OVERALL))

    def begin(self, address: str) -> None:
        """Count an attempt as wrong until `right` is called: many at once are thus counted, too."""
        for key in (address, _EVERYBODY):
            count, last = self._wrong.pop(key, (0, 0.0))
            if self._now() - last > LONGEST_WAIT_SECONDS:
                count = 0
            self._wrong[key] = count + 1, self._now()
        while len(self._wrong) > MAX_ADDRESSES:
            oldest = next(key for key in self._wrong if key != _EVERYBODY)
            del self._wrong[oldest]

    def right(self, address: str) -> None:
        """Take back the last attempt: the password was right."""
        self._wrong.pop(address, None)
        count, last = self._wrong.get(_EVERYBODY, (1, 0.0))
        self._wrong[_EVERYBODY] = count - 1, last

    def _wait(self, key: str, limit: int) -> float:
        count, last = self._wrong.get(key, (0, 0.0))
        if count < limit:
            return 0.0
        wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(count - limit, 20), LONGEST_WAIT_SECONDS)
        return max(0.0, last + wait - self._now())


class Login:
    """ASGI middleware that lets in only those with a session, a token or the password; except to the sign-in."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        auth: tuple[str, str],
        tokens: tuple[str, ...] = (),
        user_of: Callable[[Mapping[str, str]], str | None],
        attempts: Attempts | None = None,
    ) -> None:
        """Wrap an application.

        Args:
            app: Application behind the door, which handles POST /login itself.
            auth: User name and password.
            tokens: Tokens for programs.
            user_of: Returns the user of a session, by its cookies.
            attempts: Counter of wrong passwords.
        """
        self._app, self._user_of = app, user_of
        self._secrets = [_digest(token) for token in tokens]
        self._password = _digest(":".join(auth))
        self._attempts = attempts or Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path, address = scope["path"], scope["client"][0] if scope.get("client") else ""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        kind, given = kind.lower(), given.strip()
        signs_in = scope["method"] == "POST" and path.rstrip("/") == LOGIN
        if (signs_in or kind == "basic") and (wait := self._attempts.seconds_to_wait(address)) > 0:
            seconds = math.ceil(wait)
            refusal = _refusal(429, "too_many_attempts", f"Too many wrong passwords; try again in {seconds} seconds.")
            refusal.headers["Retry-After"] = str(seconds)
            await refusal(scope, receive, send)
        elif signs_in:
            await self._sign_in(address, scope, receive, send)
        elif kind and not (self._is_token(given) if kind == "bearer" else self._is_password(address, kind, given)):
            await _refusal(401, "unauthorized", "This token or password is wrong.")(scope, receive, send)
        elif kind or path in OPEN or self._user_of(request.cookies) is not None:
            await self._app(scope, receive, send)
        elif path == HOME and scope["method"] in ("GET", "HEAD"):
            await sign_in_page()(scope, receive, send)
        elif (shared := _RESULT.fullmatch(path)) and "text/html" in request.headers.get("accept", ""):
            await RedirectResponse(f"/?result={shared[1]}", status_code=303)(scope, receive, send)
        else:
            words = "Sign in, or send a token: Authorization: Bearer TOKEN."
            await _refusal(401, "unauthorized", words)(scope, receive, send)

    async def _sign_in(self, address: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._attempts.begin(address)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                self._attempts.right(address)
            await send(message)

        await self._app(scope, receive, watched)

    def _is_token(self, given: str) -> bool:
        """Compare with all tokens, in a time that does not depend on them; they are too long to be guessed."""
        digest = _digest(given)
        return sum(hmac.compare_digest(digest, secret) for secret in self._secrets) > 0

    def _is_password(self, address: str, kind: str, given: str) -> bool:
        if kind != "basic":
            return False
        try:
            user_and_password = base64.b64decode(given, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        self._attempts.begin(address)
        is_right = hmac.compare_digest(_digest(user_and_password), self._password)
        if is_right:
            self._attempts.right(address)
        return is_right


def read_tokens(path: Path) -> tuple[str, ...]:
    """Read tokens for programs, one a line; lines that begin with # are comments.

    Raises:
        UsageError: The file cannot be read, or has no token or one that could be guessed.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {str(path)!r} cannot be read: {error}.") from error
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if not tokens or min(map(len, tokens)) < LEAST_TOKEN_LENGTH:
        raise UsageError(
            f"--token-file {str(path)!r} should have a token a line, each of at least {LEAST_TOKEN_LENGTH} characters, "
            "such as: python -c 'import secrets; print(secrets.token_urlsafe())'."
        )
    return tokens


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def _refusal(status: int, code: str, message: str) -> JSONResponse:
    headers = {"WWW-Authenticate": 'Bearer realm="nonlocal-video"'} if status == 401 else None
    return JSONResponse({"code": code, "message": message}, status_code=status, headers=headers)
