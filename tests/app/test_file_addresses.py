"""Files that the page and its API offer have addresses that name no path of the server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi.testclient import TestClient
from serving import Server
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from nonlocal_video.app.application import create_app
from nonlocal_video.app.file_addresses import FileAddresses
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.samples import SAMPLES

MADE_UP = re.compile(r"/[\w-]{22}/")


def upload(server: Server, clip: Path) -> str:
    with clip.open("rb") as file:
        answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("a.mp4", file)}, timeout=60)
    (path,) = answer.raise_for_status().json()
    return str(path)


def explain(server: Server, path: str) -> str:
    """Call /explain as a program without `gradio_client` does; all that is said of it."""
    clip = {"path": path, "meta": {"_type": "gradio.FileData"}}
    url = f"{server.url}/gradio_api/call/explain"
    body = {"data": [clip, "tiny", False, "evidence", None, None, None, "", "", ""]}
    id = httpx.post(url, json=body, timeout=60).raise_for_status().json()["event_id"]
    return httpx.get(f"{url}/{id}", timeout=120).raise_for_status().text


def test_an_upload_has_an_address_without_a_path(small_server: Server, clip_folder: Path) -> None:
    path = upload(small_server, clip_folder / "a.mp4")
    assert MADE_UP.match(path)
    assert str(small_server.temporary) not in path
    content, address = (clip_folder / "a.mp4").read_bytes(), f"{small_server.url}/gradio_api/file={path}"
    assert httpx.get(address).content == content
    part = httpx.get(address, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    assert httpx.head(address).headers["content-length"] == str(len(content))


def test_the_files_of_an_answer_have_addresses_without_a_path(small_server: Server, clip_folder: Path) -> None:
    said = explain(small_server, upload(small_server, clip_folder / "a.mp4"))
    assert str(small_server.temporary) not in said
    explanation, overlay = json.loads(said.rpartition("data: ")[2])
    assert explanation["prediction"]["file"] == "a.mp4"
    assert MADE_UP.match(overlay["path"])
    assert overlay["url"].partition("file=")[2] == overlay["path"]
    video = httpx.get(f"{small_server.url}/gradio_api/file={overlay['path']}")
    assert (video.status_code, video.content[4:8]) == (200, b"ftyp")


@pytest.mark.parametrize("rest", ["nothing.mp4", "../private.txt", "../../../etc/passwd", "%2e%2e/x", ""])
def test_a_refusal_names_no_path(small_server: Server, clip_folder: Path, rest: str) -> None:
    folder = upload(small_server, clip_folder / "a.mp4").split("/")[1]
    answer = httpx.get(f"{small_server.url}/gradio_api/file=/{folder}/{rest}")
    assert answer.status_code in (403, 404)  # `..` is resolved before it is sent
    assert str(small_server.temporary) not in answer.text
    said = explain(small_server, f"/{folder}/{rest}")
    assert "event: error" in said
    assert str(small_server.temporary) not in said


@pytest.fixture
def with_a_sample(recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("NONLOCAL_VIDEO_SAMPLES", str(tmp_path / "the samples"))
    sample = SAMPLES[0]
    sample.path.parent.mkdir()
    sample.path.write_bytes(b"a clip")
    with TestClient(create_app([recognizer], samples=[sample]), base_url="http://127.0.0.1") as client:
        yield client


def test_the_page_names_no_path_of_its_samples(with_a_sample: TestClient, tmp_path: Path) -> None:
    for page in ("/", "/config"):
        text = with_a_sample.get(page).text
        assert str(tmp_path) not in text
        assert quote(str(tmp_path)) not in text
        addresses = re.findall(r"gradio_api/file=(/[\w-]{22}/dancer\.mp4)", text)
        assert addresses
        assert with_a_sample.get(f"/gradio_api/file={addresses[0]}").content == b"a clip"


def through(
    app: Any, *, folder: Path, method: str = "GET", path: str = "/gradio_api/x", body: bytes = b""
) -> tuple[FileAddresses, Any]:
    addresses = FileAddresses(app, folders=[folder])
    return addresses, TestClient(addresses).request(method, path, content=body)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what came, as text, in which nothing is hidden."""
    await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)


def name_in(addresses: FileAddresses, folder: Path) -> str:
    return addresses.hidden(str(folder).encode()).decode()


def test_only_what_names_a_file_is_taken_for_one(tmp_path: Path) -> None:
    """A label goes into files that are downloaded, and would give the folder away."""
    addresses = FileAddresses(echo, folders=[tmp_path])
    name = name_in(addresses, tmp_path)
    sent = {"data": [{"path": f"{name}/a.mp4"}], "event_data": {"paths": [f"{name}/b.mp4"]}, "label": f"{name}/c"}
    answer = TestClient(addresses).post("/gradio_api/queue/join", json=sent)
    assert answer.json() == {
        "data": [{"path": f"{tmp_path}/a.mp4"}],
        "event_data": {"paths": [f"{tmp_path}/b.mp4"]},
        "label": f"{name}/c",
    }
    for odd in (f'{{"path": "{name}/a', f'{"[" * 100_000}"{name}"', f'{{"path": "{name}/a", "n": {"9" * 5000}}}'):
        assert TestClient(addresses).post("/gradio_api/queue/join", content=odd).text == odd
    assert TestClient(addresses).post("/gradio_api/upload", content=f'{{"path": "{name}/a"}}').text.count(name) == 1


def test_every_spelling_of_a_folder_is_hidden(tmp_path: Path) -> None:
    folder = tmp_path / 'a "ü'
    folder.mkdir()
    text = [f"{folder}/a.mp4", f"/gradio_api/file={quote(str(folder))}/a.mp4", f"{folder}-2/a.mp4"]
    addresses, answer = through(JSONResponse({"said": text, "inner": json.dumps(text)}), folder=folder)
    name = name_in(addresses, folder)
    expected = [f"{name}/a.mp4", f"/gradio_api/file={name}/a.mp4", f"{folder}-2/a.mp4"]
    assert answer.json()["said"] == expected
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_stream_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    parts: list[bytes] = []

    async def events() -> Any:
        yield f"data: {tmp_path}/a.mp4\n\n"
        while not parts:
            await asyncio.sleep(0.01)
        yield "data: end\n\n"

    addresses = FileAddresses(StreamingResponse(events(), media_type="text/event-stream"), folders=[tmp_path])

    async def send(message: Any) -> None:
        if part := message.get("body"):
            parts.append(part)

    async def receive() -> Any:
        return await asyncio.Future()

    scope = {"type": "http", "method": "GET", "path": "/gradio_api/queue/data", "headers": []}

    async def answer() -> None:
        await asyncio.wait_for(addresses(scope, receive, send), 10)

    with ThreadPoolExecutor(1) as pool:  # this thread may have the loop of the browser's tests
        pool.submit(asyncio.run, answer()).result()
    assert parts == [f"data: {name_in(addresses, tmp_path)}/a.mp4\n\n".encode(), b"data: end\n\n"]
