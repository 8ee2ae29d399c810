"""Shutdown of a server while work is running that does not finish by itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pressing import SESSION, messages, press
from serving import Server, serving

from nonlocal_video.app import graceful_shutdown
from nonlocal_video.app.jobs import CLOSE_SECONDS
from nonlocal_video.app.texts import ENDING

pytestmark = pytest.mark.slow

END_WITHIN_SECONDS = 15
LEAVING_SECONDS = 3.0
"""Seconds that Python takes to end with all its libraries, on a machine with other work."""


@pytest.fixture
def server(tmp_path: Path, tiny_model: Path) -> Iterator[Server]:
    with serving(tmp_path, "--model", str(tiny_model)) as server:
        yield server


def test_the_time_to_end_is_less_than_fifteen_seconds() -> None:
    limits = graceful_shutdown.DRAIN_WITHIN_SECONDS + graceful_shutdown.STOP_WITHIN_SECONDS + CLOSE_SECONDS
    assert limits + LEAVING_SECONDS < END_WITHIN_SECONDS


def test_everybody_is_told(server: Server, clip_folder: Path) -> None:
    """A clip whose decoding stands still, a visitor of the page who waits for it, and a job that waits for nobody."""

    def post(route: str) -> httpx.Response:
        with (clip_folder / "a.mp4").open("rb") as file:
            return httpx.post(f"{server.url}/v1/{route}", files={"file": ("a.mp4", file)}, timeout=60)

    assert post("classify").status_code == 200
    (child,) = psutil.Process(server.process.pid).children()
    child.suspend()

    waits = threading.Event()

    def visit() -> list[dict[str, Any]]:
        told = []
        with httpx.Client(base_url=server.url, timeout=60) as client:
            assert press(client, clip_folder / "a.mp4").status_code == 200
            with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": SESSION}) as stream:
                for message in messages(stream):
                    told.append(message)
                    if message["msg"] == "process_starts":
                        waits.set()
        return told

    with ThreadPoolExecutor() as pool:
        held = pool.submit(post, "classify")
        seen = pool.submit(visit)
        assert waits.wait(60)
        job = post("timeline").json()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(END_WITHIN_SECONDS) == 0
        answer = held.result()
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert "The server is ending" in answer.json()["message"]
    assert job["status"] == "waiting"
    (told,) = [message for message in seen.result() if message["msg"] == "process_completed"]
    assert (told["success"], told["output"]["error"]) == (False, ENDING)
    assert not list(server.temporary.rglob("*.mp4"))
