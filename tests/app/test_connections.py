"""Connections that say nothing, or too slowly, or are too many."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
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


def answering_late() -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/")
    async def slow() -> str:
        await asyncio.sleep(0.6)
        return "answered"

    return app


def against_a_server(
    ask: Callable[[Callable[[], Awaitable[Streams]]], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    app: fastapi.FastAPI | None = None,
    **limits: float,
) -> None:
    """Run a client against a server with these limits; its answer takes longer than a head may."""
    for name, value in limits.items():
        monkeypatch.setattr(LimitedConnection, name, value)
    app = app or answering_late()

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
        getattr(begun[0], clock)()  # its socket is closed by now
        writer.close()

    against_a_server(ask, monkeypatch)


@pytest.mark.parametrize("said", [b"no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"])
def test_what_is_no_http_is_refused_in_the_form_of_all_errors(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(said)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request")
        assert json.loads(body)["code"] == "invalid_request"
        writer.close()

    against_a_server(ask, monkeypatch)


def test_what_is_no_http_after_an_answer_ends_the_connection_without_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger could otherwise fill the log with the traces of errors."""

    async def ask(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(REQUEST.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"))
        assert b"200 OK" in await answer(reader)
        writer.write(b"no number\r\n")
        assert await reader.read() == b""
        writer.close()

    against_a_server(ask, monkeypatch)
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


def slow_answer(size: int) -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/")
    def large() -> fastapi.Response:
        return fastapi.Response(b"x" * size)

    return app


@pytest.mark.parametrize("ends", [True, False])
def test_an_answer_that_nobody_reads_ends_the_connection(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a thousand such clients would hold all connections, and what they asked for, for ever."""
    size = 50_000_000  # more than the kernel takes

    async def ask(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(REQUEST if not ends else REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await asyncio.sleep(1.0)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with suppress(ConnectionResetError):
            assert len(await reader.read()) < size
        writer.close()

    against_a_server(ask, monkeypatch, slow_answer(size), read_seconds=0.2)


@pytest.mark.slow
def test_an_answer_that_is_read_slowly_is_sent_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 10_000_000

    async def ask(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = 0
        while part := await reader.read(400_000):
            received += len(part)
            await asyncio.sleep(0.1)
        assert received > size
        writer.close()

    against_a_server(ask, monkeypatch, slow_answer(size), read_seconds=1)


@pytest.mark.slow
def test_the_limit_of_files_fits_the_connections() -> None:
    """The loop would try to accept again and again at the limit, with a trace in the log each time."""
    code = (
        "import resource; from nonlocal_video.app.connections import fit_connections;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, ({}, {}));"
        "print(fit_connections(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    for soft, hard, expected in ((256, 5000, "1000 2200"), (256, 1000, "400 1000"), (3000, 3000, "1000 3000")):
        done = subprocess.run([sys.executable, "-c", code.format(soft, hard)], capture_output=True, text=True)
        assert done.stdout.strip() == expected, done.stderr


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
