"""A server that is told to end waits for requests, but not for ever; test_server has one that answers."""

from __future__ import annotations

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import fastapi
import pytest

from nonlocal_video.app import graceful_shutdown


def test_a_request_without_end_is_cut_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as an upload whose rest does not come, or work that cannot be stopped."""
    monkeypatch.setattr(graceful_shutdown, "DRAIN_WITHIN_SECONDS", 0.3)
    monkeypatch.setattr(graceful_shutdown, "STOP_WITHIN_SECONDS", 0)

    async def told_to_end_during_a_request() -> None:
        app, begun = fastapi.FastAPI(), asyncio.Event()

        @app.get("/")
        async def endless() -> None:
            begun.set()
            await asyncio.Event().wait()

        server = graceful_shutdown.GracefulServer(app)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            told = asyncio.create_task(reader.read())
            await begun.wait()
            server.should_exit = True
            await asyncio.wait_for(serving, 30)
            head, _, body = (await asyncio.wait_for(told, 30)).partition(b"\r\n\r\n")
            writer.close()
            assert head.startswith(b"HTTP/1.1 503 ")
            assert json.loads(body) == {"code": "busy", "message": "The server is ending."}

    with ThreadPoolExecutor(1) as pool:  # this thread may have the loop of the browser's tests
        pool.submit(asyncio.run, told_to_end_during_a_request()).result()
    assert not [record for record in caplog.records if record.exc_info]
