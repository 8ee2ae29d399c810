"""Refusals of a request by one of the server's doors, before the application has read it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

RETRY_SECONDS = 60
LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read, and dropped."""


async def send_refusal(
    refusal: JSONResponse, scope: Scope, receive: Receive, send: Send, *, linger: bool = True
) -> None:
    """Send a refusal, then drop what still comes: a connection that is closed over unread data loses its answer."""

    async def send_open(message: Message) -> None:
        is_body = message["type"] == "http.response.body"
        await send({**message, "more_body": True} if is_body else message)

    if not linger:
        await refusal(scope, receive, send)
        return
    await refusal(scope, receive, send_open)
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def too_large(limit: int) -> JSONResponse:
    """Return the refusal of a body of more than `limit` bytes."""
    return refused(413, "too_large", f"The body may have at most {limit} bytes here.")


def disk_full() -> JSONResponse:
    """Return the refusal for want of room on the disk."""
    refusal = refused(503, "disk_full", "The server's disk is full; try again later.")
    refusal.headers["Retry-After"] = str(RETRY_SECONDS)
    return refusal


def memory_short() -> JSONResponse:
    """Return the refusal for want of memory."""
    refusal = refused(503, "busy", "The server is short of memory; try again later.")
    refusal.headers["Retry-After"] = str(RETRY_SECONDS)
    return refusal


def refused(status: int, code: str, message: str) -> JSONResponse:
    """Return an answer after which the connection ends."""
    headers = {"Connection": "close"}  # the rest of the body is not waited for
    return JSONResponse({"code": code, "message": message}, status_code=status, headers=headers)
