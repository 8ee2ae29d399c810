"""A visitor's stream of events: the next event is heard, whenever it begins."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import takewhile

import fastapi
import gradio as gr
import httpx
import pytest
from playwright.sync_api import Page, expect
from serving import serving_here
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nonlocal_video.app import event_stream
from nonlocal_video.app.event_stream import BEGIN, STREAM, EventStreams

SLOW_NEWS_SECONDS = 0.5


class SlowNews:
    """A network on which the news of a stream's end takes longer than everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.under_way = threading.Event()
        """Set once the news has left the server."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_later(message: Message) -> None:
            if b"close_stream" in message.get("body", b""):
                self.under_way.set()
                await asyncio.sleep(SLOW_NEWS_SECONDS)
            await send(message)

        await self._app(scope, receive, send_later)


def hurried_page() -> gr.Blocks:
    with gr.Blocks() as page:
        first, second = gr.Button("First"), gr.Button("Second")
        heard = gr.Textbox(label="Heard")
        first.click(lambda: "first", None, heard)
        second.click(lambda: "second", None, heard)
    return page


@contextmanager
def serving(*, guarded: bool = True) -> Iterator[tuple[str, SlowNews]]:
    """A page with two buttons on that network, and its address."""
    page = hurried_page()
    app: ASGIApp = gr.mount_gradio_app(fastapi.FastAPI(), page, path="/", ssr_mode=False)
    if guarded:
        app = EventStreams(app, under_way=page._queue.pending_event_ids_session)
    network = SlowNews(app)
    with serving_here(network) as url:
        yield url, network


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with serving() as (url, _), httpx.Client(base_url=url, timeout=30) as client:
        yield client


def begin(client: httpx.Client, function: int) -> str:
    answer = client.post(BEGIN, json={"data": [], "fn_index": function, "session_hash": "visitor"})
    return str(answer.raise_for_status().json()["event_id"])


def messages(response: httpx.Response) -> Iterator[dict[str, object]]:
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def is_before_the_end(message: dict[str, object]) -> bool:
    return message["msg"] != "close_stream"


def test_an_event_that_begins_at_the_end_of_another_is_told_on_the_same_stream(client: httpx.Client) -> None:
    first = begin(client, 0)
    completed, told = [], []
    with client.stream("GET", STREAM, params={"session_hash": "visitor"}) as response:
        for message in takewhile(is_before_the_end, messages(response)):
            told.append(message["msg"])
            if message["msg"] == "process_completed":
                completed.append(message["event_id"])
                if len(completed) < 3:
                    begin(client, 1)
    assert completed[0] == first
    assert len(set(completed)) == 3


def test_a_session_that_is_not_known_is_told_so_without_a_trace(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger could otherwise fill the log."""
    with client.stream("GET", STREAM, params={"session_hash": "nobody"}) as response:
        (told,) = messages(response)
    assert (told["msg"], told["session_not_found"]) == ("unexpected_error", True)
    assert not [record for record in caplog.records if record.exc_info]


def test_no_event_is_confirmed_before_the_end_of_the_stream_is_known(client: httpx.Client) -> None:
    for _ in range(2):  # also with an earlier end behind it
        begin(client, 0)
        with ThreadPoolExecutor() as pool:
            with client.stream("GET", STREAM, params={"session_hash": "visitor"}) as response:
                told = messages(response)
                assert next(message for message in told if message["msg"] == "close_stream")
                confirmed = pool.submit(begin, client, 1)
                other = {"data": [], "fn_index": 0, "session_hash": "other"}
                client.post(BEGIN, json=other).raise_for_status()
                assert not wait([confirmed], timeout=0.5).done
            confirmed.result(timeout=30)  # it is closed now
        with client.stream("GET", STREAM, params={"session_hash": "visitor"}) as response:
            heard = [message["msg"] for message in takewhile(is_before_the_end, messages(response))]
        assert "process_completed" in heard


def test_a_program_that_waits_for_the_end_of_the_connection_gets_it(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "NEWS_SECONDS", 0.5)
    begin(client, 0)
    with client.stream("GET", STREAM, params={"session_hash": "visitor"}) as response:
        assert list(messages(response))[-1]["msg"] == "close_stream"
    begin(client, 1)


@pytest.mark.parametrize("when", ["at once", "at the end"])
def test_a_browser_hears_an_event_that_begins_before_it_knows_of_the_end(page: Page, when: str) -> None:
    """Without `EventStreams`, the second event is never told."""
    with serving() as (url, network):
        page.goto(url)
        heard = page.get_by_label("Heard")
        for _ in range(3):
            network.under_way.clear()
            page.get_by_role("button", name="First").click()
            expect(heard).to_have_value("first")
            if when == "at the end":
                assert network.under_way.wait(10)
            page.get_by_role("button", name="Second").click()
            expect(heard).to_have_value("second")
