"""Limits on how much and how slowly a request may send."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastapi
import pytest
import uvicorn
from fastapi.testclient import TestClient
from starlette.types import Message

from nonlocal_video.app import body_limit
from nonlocal_video.app.application import create_app
from nonlocal_video.app.body_limit import MAX_BODY_BYTES, BodyLimit
from nonlocal_video.inference.recognizer import Recognizer

LIMIT = 1000


@pytest.fixture
def read() -> list[int]:
    """Sizes of the bodies that the application has read."""
    return []


@pytest.fixture
def client(read: list[int]) -> TestClient:
    app = fastapi.FastAPI()

    @app.post("/{path:path}")
    async def anything(request: fastapi.Request) -> int:
        body = await request.body()
        read.append(len(body))
        return len(body)

    app.add_middleware(BodyLimit, max_upload_bytes=5000, max_files=2, max_body_bytes=LIMIT)
    return TestClient(app, base_url="http://127.0.0.1")


def in_parts(num_bytes: int) -> Iterator[bytes]:
    """A body without an announced length."""
    for start in range(0, num_bytes, 300):
        yield b"\0" * min(300, num_bytes - start)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/gradio_api/queue/join", LIMIT),
        ("/login", LIMIT),
        ("/gradio_api/uploads", LIMIT),
        ("/v1/classify", 5000 + LIMIT),
        ("/v2/classify", LIMIT),
        ("/gradio_api/upload", 2 * 5000 + LIMIT),
        ("/gradio_api/upload/", 2 * 5000 + LIMIT),
    ],
)
@pytest.mark.parametrize("is_announced", [True, False])
def test_bodies_have_a_limit(client: TestClient, read: list[int], path: str, allowed: int, is_announced: bool) -> None:
    for size, status in ((allowed, 200), (allowed + 1, 413)):
        response = client.post(path, content=b"\0" * size if is_announced else in_parts(size))
        assert response.status_code == status
    assert response.json() == {"code": "too_large", "message": f"The body may have at most {allowed} bytes here."}
    assert response.headers["connection"] == "close"
    assert read == [allowed]


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 5000, "+1", "0x10", "", "²"])
def test_lengths_that_are_none_are_refused(client: TestClient, read: list[int], length: str) -> None:
    response = client.post("/x", content=b"", headers={b"Content-Length": length.encode("latin-1")})
    assert (response.status_code, read) == (413, [])


def test_two_ways_to_say_a_length_are_refused(client: TestClient, read: list[int]) -> None:
    headers = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    response = client.post("/x", content=b"{}", headers=headers)
    assert (response.status_code, response.json()["code"], read) == (400, "invalid_request", [])
    assert response.headers["connection"] == "close"


def test_a_large_body_is_refused_before_it_comes() -> None:
    """Neither the application nor the check reads anything of it; what still comes is dropped."""
    sent: list[Message] = []
    coming = [True, True, False]

    async def receive() -> Message:
        assert [message.get("status") for message in sent] == [413, None], "the answer waits for the body"
        return {"type": "http.request", "body": b"{" * 1000, "more_body": coming.pop(0)}

    async def send(message: Message) -> None:
        sent.append(message)

    async def app(*_: Any) -> None:
        raise AssertionError("the application is asked")

    scope = {
        "type": "http", "method": "POST", "path": "/gradio_api/queue/join",
        "headers": [(b"content-length", str(64 * 1024**2).encode())],
    }  # fmt: skip
    run(BodyLimit(app, max_upload_bytes=1)(scope, receive, send))
    assert not coming
    assert [message.get("more_body", False) for message in sent[1:]] == [True, False]


def test_a_sender_that_reads_only_after_it_has_sent_gets_its_refusal() -> None:
    """A connection that is closed over unread data is reset, and the answer on it lost."""

    async def app(*_: Any) -> None:
        raise AssertionError("the application is asked")

    server = uvicorn.Server(uvicorn.Config(BodyLimit(app, max_upload_bytes=1), log_level="warning", lifespan="off"))
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            for _ in range(5):
                with closing(socket.create_connection(listening.getsockname(), 10)) as sender:
                    sender.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
                    for _ in range(90):
                        sender.sendall(bytes(100_000))
                    time.sleep(0.2)
                    answer = sender.makefile("rb").read()
                assert answer.startswith(b"HTTP/1.1 413 ")
                assert answer.endswith(b'"message":"The body may have at most 1048576 bytes here."}')
        finally:
            server.should_exit = True
            thread.join(30)


def run(work: Any) -> None:
    with ThreadPoolExecutor(1) as pool:  # this thread may have the loop of the browser's tests
        pool.submit(asyncio.run, work).result()


@pytest.mark.parametrize("app_reads_well", [True, False])
def test_a_silent_sender_is_told_to_go(app_reads_well: bool) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert message == {"type": "http.disconnect"}
        if not app_reads_well:
            raise RuntimeError("gone")
        await send({"type": "http.response.start", "status": 500, "headers": []})

    scope = {"type": "http", "method": "POST", "path": "/v1/classify", "headers": []}
    run(BodyLimit(app, max_upload_bytes=1, idle_seconds=0.01)(scope, receive, send))
    assert [message.get("status") for message in sent] == [408, None]
    assert b"Nothing came for 0.01 seconds" in sent[1]["body"]


def test_uploads_that_would_fill_the_disk_are_refused_before_they_come(
    client: TestClient, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = body_limit.SPARE_BYTES + 2 * 700
    monkeypatch.setattr(body_limit.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    for path in ("/v1/classify", "/gradio_api/upload"):
        assert client.post(path, content=b"\0" * 700).status_code == 200
        response = client.post(path, content=b"\0" * 701)
        assert (response.status_code, response.json()["code"]) == (503, "disk_full")
        assert int(response.headers["retry-after"]) > 0
    assert client.post("/login", content=b"\0" * 701).status_code == 200, "what is not kept needs no room"
    assert read == [700, 700, 701]


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(errno.ENOSPC, "full"), 503), (OSError(errno.EIO, "broken"), 500), (KeyError(), 500)]
)
def test_a_disk_that_becomes_full_is_said(error: Exception, status: int) -> None:
    app = fastapi.FastAPI()

    @app.post("/gradio_api/upload")
    def upload() -> None:
        raise error

    client = TestClient(Outermost(BodyLimit(app, max_upload_bytes=1)), base_url="http://127.0.0.1")
    response = client.post("/gradio_api/upload")
    assert response.status_code == status
    assert (status == 500) == (response.text == "Internal Server Error")
    assert response.headers["connection"] == "close", "or a client would send the next request there"


class Outermost:
    """A server that keeps running when an application fails."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, *arguments: Any) -> None:
        with suppress(Exception):
            await self.app(*arguments)


def test_an_answer_may_take_its_time() -> None:
    """After the body, waiting for the end of the connection has no limit."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"all"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.1)

    parts = [{"type": "http.request", "body": b"all"}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    run(BodyLimit(app, max_upload_bytes=1, idle_seconds=0.01)(scope, receive, send))


def test_the_server_limits_bodies_before_it_asks_for_a_password(
    recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
    app = create_app([recognizer], auth=("ann", "secret"), max_upload_mb=1)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        large = b"[" * (MAX_BODY_BYTES + 1)
        for path in ("/gradio_api/queue/join", "/gradio_api/run/classify", "/login", "/healthz"):
            assert client.post(path, content=large).status_code == 413
        assert client.post("/v1/classify", content=large * 2).status_code == 413
        assert client.post("/v1/classify", content=large).status_code == 401


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/v1/classify"])
def test_a_form_that_is_cut_off_is_refused(
    recognizer: Recognizer, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    name = "files" if "upload" in path else "file"
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"; filename="clip.mp4"\r\n\r\n'
    body = head.encode() + b"no video at all " * 100
    kind = {"Content-Type": 'multipart/form-data; boundary="edge"'}
    with TestClient(create_app([recognizer]), base_url="http://127.0.0.1") as client:
        for end in (b"", b"\r\n--edge"):
            answer = client.post(path, content=body + end, headers=kind)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
            assert answer.json()["message"] == "The form ends before its last boundary; send it again."
        whole = client.post(path, content=body + b"\r\n--edge--", headers=kind)
    assert whole.status_code == (200 if "upload" in path else 415)


FILE = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="clip.mp4"\r\n\r\n1\r\n'
END = b"--edge--\r\n"
FORM = "multipart/form-data; boundary=edge"


@pytest.mark.parametrize("follow", ["", "?upload_id=followed"])
def test_an_upload_that_is_damaged_is_refused_in_a_sentence(
    recognizer: Recognizer, follow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    no_file = FILE.replace(b'; filename="clip.mp4"', b"")
    damaged = {
        "no boundary": ("multipart/form-data", FILE + END),
        "no form": ("application/json", b"{}"),
        "no part": (FORM, b"rubbish" + END),
        "a word in place of the file": (FORM, no_file + END),
        "a word beside the file": (FORM, FILE + no_file.replace(b"files", b"other") + END),
        "no name": (FORM, FILE.replace(b'name="files"; ', b"") + END),
        "no head": (FORM, b"--edge\r\n\r\n1\r\n" + END),
        "too long a name": (FORM, FILE.replace(b"clip", b"x" * 10_000) + END),
        "a folder's name": (FORM, FILE.replace(b"clip.mp4", b"..") + END),
        "too many": (FORM, 1001 * FILE + END),
    }
    with TestClient(create_app([recognizer]), base_url="http://127.0.0.1") as client:
        for what, (kind, body) in damaged.items():
            answer = client.post(f"/gradio_api/upload{follow}", content=body, headers={"Content-Type": kind})
            assert answer.status_code in (400, 413), what
            assert re.fullmatch(r"[^\n]{10,150}", answer.text), what
        whole = client.post(f"/gradio_api/upload{follow}", content=FILE + END, headers={"Content-Type": FORM})
    assert whole.status_code == 200
