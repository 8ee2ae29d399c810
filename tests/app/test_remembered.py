"""State that the server keeps of visitors, whatever they send: names, messages, uploads, events."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastapi
import gradio as gr
import pytest
from fastapi.testclient import TestClient
from gradio import routes
from gradio.server_messages import ProcessCompletedMessage
from pressing import choose, press
from starlette.routing import Mount

from nonlocal_video.app import application, gradio_bounds, remembered, visits
from nonlocal_video.app.application import create_app
from nonlocal_video.app.callbacks import recognise
from nonlocal_video.app.remembered import Mailbox, Mailboxes, Recent, Remembered, Signals
from nonlocal_video.app.visits import How, Visits
from nonlocal_video.inference.recognizer import Recognizer

MAX_SESSIONS = 3
BAD_NAMES = ["", "x" * 101, "a b", "a/b", "a\n", "\ud800", "é", "\0", "x" * 500_000]


@pytest.fixture
def app(recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fastapi.FastAPI:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(application, "MAX_SESSIONS", MAX_SESSIONS)
    return create_app([recognizer])


@pytest.fixture
def client(app: fastapi.FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def gradio_app(app: fastapi.FastAPI) -> Any:
    (found,) = [route.app for route in app.routes if isinstance(route, Mount)]
    return found


def in_loop(work: Callable[[], Any]) -> None:
    async def go() -> None:
        work()

    with ThreadPoolExecutor(1) as pool:  # this thread may have the loop of the browser's tests
        pool.submit(asyncio.run, go()).result()


def function(client: TestClient, name: str) -> tuple[int, list[Any]]:
    """A listener's number, and the values that its components have at first."""
    config = client.get("/config").json()
    values = {component["id"]: component["props"].get("value") for component in config["components"]}
    (found,) = [listener for listener in config["dependencies"] if listener["api_name"] == name]
    return found["id"], [values[number] for number in found["inputs"]]


def ended(client: TestClient, session: str) -> dict[str, Any]:
    """Listen until what was begun has ended."""
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        return next(line for line in stream.iter_lines() if "process_completed" in line)


def test_names_that_no_browser_gives_are_refused(client: TestClient, gradio_app: Any) -> None:
    number, values = function(client, "offer")

    def post(path: str, **body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        return client.post(f"/gradio_api/{path}", content=json.dumps(body), headers=headers)

    for name in BAD_NAMES:
        joined = post("queue/join", data=values, fn_index=number, session_hash=name)
        called = post("run/predict", data=values, fn_index=number, session_hash=name)
        asked = post("component_server", session_hash=name, component_id=1, fn_name="stop", data=None)
        assert (joined.status_code, asked.status_code) == (422, 422)
        assert called.status_code in (422, 500)
        for answer in (joined, called, asked):
            assert "1 to 100 letters" in answer.text
    for held in (gradio_app.state_holder.session_data, gradio_app.get_blocks()._queue.pending_messages_per_session):
        assert not held


def test_uploads_that_nobody_follows_are_bounded(client: TestClient) -> None:
    uploads = routes.file_upload_statuses
    for number in range(3 * MAX_SESSIONS):
        answer = client.post(f"/gradio_api/upload?upload_id=u{number}", files={"files": ("a.mp4", b"1")})
        assert answer.status_code == 200
    assert len(uploads._statuses) == len(uploads._signals) == MAX_SESSIONS
    assert client.get("/gradio_api/upload_progress", params={"upload_id": "x" * 1000}).status_code == 422


def test_events_leave_no_record(client: TestClient, gradio_app: Any) -> None:
    """Gradio keeps the last 10,000 with the names of their sessions, and computes tables of them after each."""
    number, values = function(client, "offer")
    for session in ("a", "b"):
        body = {"data": values, "fn_index": number, "session_hash": session}
        assert client.post("/gradio_api/queue/join", json=body).status_code == 200
        assert '"success":true' in ended(client, session)
    queue = gradio_app.get_blocks()._queue
    assert queue.event_analytics == {}
    assert queue.event_ids_to_events == {}


def test_sessions_that_are_forgotten_have_left(
    client: TestClient, gradio_app: Any, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else their runs would be kept for ever; but not those for which something is under way."""
    gradio_app.get_blocks()._queue.event_ids_to_events["run"] = SimpleNamespace(session_hash="busy")
    ended: list[str] = []
    leave = Visits.leave
    monkeypatch.setattr(Visits, "close", lambda self, session: (ended.append(session), leave(self, session)))
    for session in ("busy", "first", "second", "third", "fourth"):
        assert choose(client, clip_folder / "a.mp4", session=session)[0]["state"] == "waiting"
    assert ended == ["first", "second"]
    assert [*gradio_app.state_holder.session_data] == ["busy", "third", "fourth"]
    assert {*gradio_app.state_holder.time_last_used} == {"busy", "third", "fourth"}


def test_a_callback_that_fails_for_one_who_left_does_not_fail_for_who_came(
    client: TestClient, clip_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Visits, "close", fail)
    for number in range(2 * MAX_SESSIONS):
        assert choose(client, clip_folder / "a.mp4", session=f"s{number}")[0]["state"] == "waiting"
    assert "A visitor could not be forgotten" in caplog.text


def test_choices_whose_page_is_gone_hold_no_place(
    recognizer: Recognizer, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page queues its run at once; 32 choices without a run would let nobody else in until the server's end."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(recognise, "MAX_WAITING", 3)
    with TestClient(create_app([recognizer]), base_url="http://127.0.0.1") as client:
        for number in range(3):
            assert choose(client, clip_folder / "a.mp4", session=f"s{number}")[0]["state"] == "waiting"
        assert "busy" in choose(client, clip_folder / "a.mp4")[0]["title"]
        monkeypatch.setattr(visits, "JOIN_SECONDS", 0)
        assert choose(client, clip_folder / "a.mp4")[0]["state"] == "waiting"


def test_runs_that_never_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    queued: set[str] = set()
    known = Visits(queued=lambda: queued)
    how = How("tiny")
    gone, waits = (known.begin(session, tmp_path, "a", how, 1) for session in ("gone", "waits"))
    queued.add("waits")
    assert known.waiting == 2
    monkeypatch.setattr(visits, "JOIN_SECONDS", 0)
    assert known.waiting == 1
    late = known.begin("late", tmp_path, "a", how, 1)
    assert late is not None
    assert known.ahead_of(late) == [waits]
    assert known.claim("gone") is gone, "it is done all the same if it comes"
    assert known.ahead_of(late) == [gone, waits]


def test_messages_have_a_size_together_and_those_who_listen_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAX_MESSAGE_BYTES", 10_000)

    def message(number: int) -> ProcessCompletedMessage:
        return ProcessCompletedMessage(output={"number": number, "text": "x" * 900}, success=True)

    def go() -> None:
        boxes = Mailboxes(10)
        boxes["deaf"], boxes["listens"] = Mailbox(), Mailbox()
        boxes["listens"].heard += 1
        for number in range(5):
            boxes["listens"].put_nowait(message(number))
        for number in range(100):
            boxes["deaf"].put_nowait(message(number))
        assert boxes["listens"].qsize() == 5
        assert 3 <= boxes["deaf"].qsize() <= 5
        assert sum(box.num_bytes for box in boxes.values()) <= 10_000
        assert boxes["deaf"].get_nowait().output["number"] >= 95, "the last ones stay"
        for box in boxes.values():
            while not box.empty():
                box.get_nowait()
            assert box.num_bytes == 0

    in_loop(go)


def test_sets_and_signals_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAX_MESSAGES", 4)
    recent = Recent()
    for number in range(9):
        recent.add(str(number))
    assert len(recent) == 4
    assert "8" in recent

    def go() -> None:
        signals = Signals(2)
        first = signals["a"]
        assert signals["a"] is first
        assert {name: signals[name].is_set() for name in ("b", "c")} == {"b": False, "c": False}
        assert [*signals] == ["b", "c"]

    in_loop(go)


def test_if_all_are_under_way_the_oldest_is_forgotten() -> None:
    forgotten: list[str] = []
    kept = Remembered(2, under_way=lambda: {"a", "b", "c"}, on_forget=forgotten.append)
    for name in ("a", "b", "c"):
        kept[name] = name
    kept["b"] = "again"
    assert (dict(kept), forgotten) == ({"c": "c", "b": "again"}, ["a"])


def test_sign_ins_are_bounded(recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(gradio_bounds, "MAX_SIGN_INS", 2)
    app = create_app([recognizer], auth=("ann", "secret"))
    clients = [TestClient(app, base_url="http://127.0.0.1") for _ in range(3)]
    for client in clients:
        assert client.post("/login", data={"username": "ann", "password": "secret"}).status_code == 200
    assert [client.get("/v1/openapi.json").status_code for client in clients] == [401, 200, 200]


def test_a_part_of_the_picture_is_short(client: TestClient, clip_folder: Path) -> None:
    """It stays in the session and in each message of the run."""
    assert press(client, clip_folder / "a.mp4").status_code == 200
    number, values = function(client, "again")
    body = {"data": values, "fn_index": number, "session_hash": "visitor", "event_data": {"choice": 99}}
    for region, status in (("0,0,1,0.5", 200), ("0" * 101, 500)):
        answer = client.post("/gradio_api/run/predict", json={**body, "event_data": {"choice": 99, "region": region}})
        assert answer.status_code == status
    assert re.search("at most 100 characters", answer.json()["error"])


def test_releases_that_keep_it_elsewhere_are_refused(gradio_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from nonlocal_video.errors import UsageError

    monkeypatch.delattr(gradio_app, "iterators_to_reset")
    with pytest.raises(UsageError, match=r"has no App\.iterators_to_reset"):
        gradio_bounds.bound_sessions(gradio_app, 1)
    assert isinstance(gradio_app.get_blocks(), gr.Blocks)
