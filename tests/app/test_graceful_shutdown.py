"""A server that is told to end answers first what it was asked."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fastapi
import httpx
import pytest
from pressing import SESSION, messages, press
from serving import STOP_WITHIN_SECONDS, Server, serving

from nonlocal_video.app import graceful_shutdown

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path, tiny_model: Path) -> Iterator[Server]:
    with serving(tmp_path, "--model", str(tiny_model)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def test_a_recognition_in_progress_is_answered_and_no_new_one_begun(
    server: Server, client: httpx.Client, clip_folder: Path
) -> None:
    clip = clip_folder / "a.mp4"
    assert press(client, clip).status_code == 200
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": SESSION}) as stream:
        said = messages(stream)
        assert any(message["msg"] == "process_starts" for message in said)
        server.process.send_signal(signal.SIGTERM)
        rest = list(said)
    assert [message["success"] for message in rest if message["msg"] == "process_completed"] == [True], rest
    (address,) = set(re.findall(r'"url": "(http[^"]+\.mp4)"', json.dumps(rest)))
    overlay = client.get(address)
    assert (overlay.status_code, overlay.headers["content-type"]) == (200, "video/mp4")
    assert press(client, clip).status_code == 503
    assert server.process.wait(STOP_WITHIN_SECONDS) == 0


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
