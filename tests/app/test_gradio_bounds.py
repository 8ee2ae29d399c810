"""Bounds of what Gradio remembers of visitors who never listen, and its cleaner."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from gradio import route_utils
from starlette.routing import Mount

from nonlocal_video.app import application
from nonlocal_video.app.application import create_app
from nonlocal_video.app.gradio_bounds import keep_cleaning
from nonlocal_video.app.remembered import MAX_MESSAGES, Mailbox
from nonlocal_video.inference.recognizer import Recognizer

MAX_SESSIONS = 5


@pytest.fixture
def client(recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(application, "MAX_SESSIONS", MAX_SESSIONS)
    with TestClient(create_app([recognizer]), base_url="http://127.0.0.1") as client:
        yield client


def test_visitors_who_never_listen_are_forgotten(client: TestClient) -> None:
    gradio_app: Any
    (gradio_app,) = [route.app for route in client.app.routes if isinstance(route, Mount)]  # type: ignore[attr-defined]
    queue = gradio_app.get_blocks()._queue
    joined = 0
    while joined < 4 * MAX_SESSIONS:
        response = client.post("/gradio_api/call/v2/classify", json={"clip": None})
        joined += response.status_code == 200
    assert 0 < len(queue.pending_messages_per_session) <= MAX_SESSIONS
    assert len(queue.pending_event_ids_session) <= MAX_SESSIONS
    assert len(gradio_app.state_holder.session_data) <= MAX_SESSIONS


def test_messages_of_one_visitor_are_bounded_and_the_last_ones_stay() -> None:
    async def go() -> None:
        mailbox = Mailbox()
        for number in range(MAX_MESSAGES + 3):
            mailbox.put_nowait(number)
        assert mailbox.qsize() == MAX_MESSAGES
        assert await mailbox.get() == 3

    with ThreadPoolExecutor(1) as pool:  # this thread may have the loop of the browser's tests
        pool.submit(asyncio.run, go()).result()


def test_a_folder_named_as_a_clip_does_not_end_the_cleaner(tmp_path: Path) -> None:
    keep_cleaning()
    keep_cleaning()  # of a second server in one process
    (tmp_path / "folder").mkdir()
    later = tmp_path / "later.mp4"
    files = {str(tmp_path / "folder")}
    blocks: Any = SimpleNamespace(blocks={}, temp_file_sets=[files])

    async def go() -> None:
        task = asyncio.create_task(
            route_utils.delete_files_on_schedule(SimpleNamespace(get_blocks=lambda: blocks), 0.01, 0)
        )
        await asyncio.sleep(0.1)
        assert not task.done(), "it keeps running"
        later.touch()
        files.add(str(later))
        while later.exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, asyncio.wait_for(go(), 30)).result()
    assert os.path.isdir(tmp_path / "folder")
