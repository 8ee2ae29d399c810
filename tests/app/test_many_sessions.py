"""Sessions that never listen: however many there are, the server's memory stays as it is."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient
from starlette.routing import Mount

from nonlocal_video.app import application
from nonlocal_video.app.application import create_app
from nonlocal_video.app.cleanup import give_memory_back
from nonlocal_video.inference.recognizer import Recognizer

MAX_SESSIONS = 20
FIRST, MORE = 30, 60
TEXT = "x" * 100_000
"""Value that each sends twice: in a choice of files, which the page remembers, and in one that an error repeats."""
GROWTH_MIB = 8
"""Without a bound the 60 sessions take 25 MB; with it, what is free but not given back varies by less than this."""

pytestmark = pytest.mark.slow


class Sessions:
    """Visitors who open the page, choose files, begin something that fails, and never listen."""

    def __init__(self, client: TestClient) -> None:
        self._client, self._number = client, 0
        config = client.get("/config").json()
        parts = {part["id"]: part["props"] for part in config["components"]}
        self._choose = next(
            listener["id"]
            for listener in config["dependencies"]
            if [parts[number].get("elem_id") for number in listener["outputs"][:1]] == ["folder-said"]
            and listener["targets"][0][1] == "chosen"
        )
        self._offer = next(one["id"] for one in config["dependencies"] if one["api_name"] == "offer")

    def come(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            session = {"session_hash": f"session-{self._number}"}
            chosen = {"data": [], "fn_index": self._choose, "event_data": {"paths": [TEXT]}}
            assert self._client.post("/gradio_api/run/predict", json=session | chosen).status_code == 200
            begun = {"data": [TEXT], "fn_index": self._offer}
            while self._client.post("/gradio_api/queue/join", json=session | begun).status_code == 503:
                time.sleep(0.02)  # the queue is full


def held_mib() -> float:
    gc.collect()
    give_memory_back()
    return psutil.Process().memory_info().rss / 2**20


def test_memory_and_number_stay_bounded(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(application, "MAX_SESSIONS", MAX_SESSIONS)
    app = create_app([recognizer])
    gradio_app: Any
    (gradio_app,) = [route.app for route in app.routes if isinstance(route, Mount)]
    with TestClient(app, base_url="http://127.0.0.1") as client:
        sessions = Sessions(client)
        sessions.come(FIRST)
        before = held_mib()
        sessions.come(MORE)
        grown = held_mib() - before
    queue = gradio_app.get_blocks()._queue
    for held in (
        gradio_app.state_holder.session_data,
        gradio_app.state_holder.time_last_used,
        queue.pending_messages_per_session,
        queue.pending_event_ids_session,
    ):
        assert 0 < len(held) <= MAX_SESSIONS
    assert not queue.event_analytics
    assert grown < GROWTH_MIB
