"""Connections that say nothing, or too slowly, or are too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import fastapi
import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nonlocal_video.app.connections import LimitedConnection

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def against_a_server(
    ask: Callable[[Callable[[], Awaitable[Streams]]], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, **limits: float
) -> None:
    """Run a client against a server with these limits; its answer takes longer than a head may."""
    for name, value in limits.items():
        monkeypatch.setattr(LimitedConnection, name, value)
    app = fastapi.FastAPI()

    @app.get("/")
    async def slow() -> str:
        await asyncio.sleep(0.6)
        return "answered"

    async def main() -> None:
        server = uvicorn.Server(uvicorn.Config(app, http=LimitedConnection, ws="none", port=0, log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        (listener,) = server.servers
        port = listener.sockets[0].getsockname()[1]
        try:
            await asyncio.wait_for(ask(lambda: asyncio.open_connection("127.0.0.1", port)), 30)
        finally:
            server.should_exit = True
            await serving

    with ThreadPoolExecutor(1) as pool:  # this thread may have the loop of the browser's tests
        pool.submit(asyncio.run, main()).result()


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(len('"answered"'))
    return head + body


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: he"])
def test_a_head_that_does_not_come_ends_the_connection(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(said)
        assert await reader.read() == b""
        writer.close()

    against_a_server(ask, monkeypatch, head_seconds=0.2)


def test_slow_letters_do_not_prolong_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        ended = asyncio.create_task(reader.read())
        writer.write(b"GET / HTTP/1.1\r\n")
        while not ended.done():
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.02)
        writer.close()

    against_a_server(ask, monkeypatch, head_seconds=0.2)


def test_answers_may_be_slow_and_the_next_request_of_a_connection_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(REQUEST)
            assert b"200 OK" in await answer(reader)
        writer.write(REQUEST[:10])
        assert await reader.read() == b""
        writer.close()

    against_a_server(ask, monkeypatch, head_seconds=0.2)


@pytest.mark.parametrize("clock", ["timeout_keep_alive_handler", "_give_up"])
@pytest.mark.slow
def test_a_request_that_comes_as_the_time_is_up_is_answered(clock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[LimitedConnection] = []

    def begin(connection: LimitedConnection, transport: asyncio.Transport) -> None:
        begun.append(connection)
        H11Protocol.connection_made(connection, transport)

    monkeypatch.setattr(LimitedConnection, "connection_made", begin)

    async def ask(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(REQUEST)  # the loop has not read it
            for connection in begun:
                getattr(connection, clock)()
            assert b"200 OK" in await answer(reader)
        getattr(begun[0], clock)()
        assert await reader.read() == b""
        writer.close()

    against_a_server(ask, monkeypatch)


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(connect: Callable[[], Awaitable[Streams]]) -> None:
        kept = [await connect() for _ in range(2)]
        for _, writer in kept:
            writer.write(REQUEST)
        assert b"200 OK" in await answer(kept[0][0])
        reader, _ = await connect()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert b"200 OK" in await answer(kept[1][0])
        for _, writer in kept:
            writer.close()

    against_a_server(ask, monkeypatch, max_connections=2)
