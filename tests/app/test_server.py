"""The server around the page."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest
from fastapi.testclient import TestClient
from pressing import SESSION, messages, press
from serving import STOP_WITHIN_SECONDS, serving

from nonlocal_video.app import application, body_limit, login, server
from nonlocal_video.app.application import create_app
from nonlocal_video.app.connections import LimitedConnection
from nonlocal_video.app.server import serve
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.recognizer import Recognizer

MEGABYTE = 1024**2
StartClient = Callable[..., TestClient]


@pytest.fixture
def start(recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartClient]:
    """Makes clients of a server of their own, in this process."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    clients: list[TestClient] = []

    def start(**how: Any) -> TestClient:
        clients.append(TestClient(create_app([recognizer], **how), base_url="http://127.0.0.1"))
        return clients[-1].__enter__()

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def upload(client: TestClient, num_bytes: int) -> Any:
    return client.post("/gradio_api/upload", files={"files": ("clip.mp4", b"\0" * num_bytes)})


def test_health_check_needs_no_password(start: StartClient) -> None:
    client = start(auth=("ann", "secret"))
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "models": ["tiny"]}


def test_health_check_needs_no_thread(start: StartClient) -> None:
    """All threads may be busy with uploads."""
    client = start()
    assert client.portal is not None

    async def take_all_threads() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        await limiter.acquire_on_behalf_of("a long upload")

    client.portal.call(take_all_threads)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(client.get("/healthz").status_code), daemon=True)
    asking.start()
    asking.join(30)

    async def give_back() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.release_on_behalf_of("a long upload")
        limiter.total_tokens = 40

    client.portal.call(give_back)
    assert answers == [200]


def test_a_password_is_asked_for(start: StartClient) -> None:
    client = start(auth=("ann", "secret"))
    assert client.get("/config").status_code == 401
    assert upload(client, 1).status_code == 401
    assert client.post("/login", data={"username": "ann", "password": "wrong"}).status_code == 400
    assert client.post("/login", data={"username": "ann", "password": "secret"}).status_code == 200
    assert client.get("/config").status_code == 200
    tries = [client.post("/login", data={"username": "ann", "password": "wrong"}).status_code for _ in range(21)]
    assert tries[-1] == 429, "after at most 20 wrong ones"


def test_what_the_command_line_says_holds_at_the_server(
    run: Callable[..., Any],
    recognizer: Recognizer,
    clip_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the options to the answers, with a network that is there already and without an address."""
    token = "a-token-that-nobody-would-guess"
    (tmp_path / "tokens").write_text(f"{token}\n")
    program = {"Authorization": f"Bearer {token}"}
    answers: dict[str, Any] = {}

    class Asked:
        """In place of the server: asks the application."""

        def __init__(self, app: Any, **how: Any) -> None:
            self.app, self.on_signal = app, how["on_signal"]

        def run(self, **_: Any) -> None:
            with TestClient(self.app, base_url="http://127.0.0.1") as client:
                answers["stranger"] = client.get("/v1/docs")
                answers["program"] = client.get("/v1/docs", headers={**program, "Host": "video.example"})
                answers["foreign"] = client.get("/v1/docs", headers={**program, "Host": "evil.example"})
                answers["large"] = client.post("/v1/classify", headers={"Content-Length": str(2 * MEGABYTE + 1)})
                for name, form in (("file", {"path": "no.mp4"}), ("hook", {"path": "a.mp4", "webhook": "http://x/"})):
                    sent = {field: (None, value) for field, value in form.items()}
                    answers[name] = client.post("/v1/timeline", headers=program, files=sent)
                assert client.portal is not None
                client.portal.call(self.on_signal)
                answers["late"] = client.post("/v1/timeline", headers=program, files={"path": (None, "a.mp4")})

    monkeypatch.setattr(server, "load", lambda *_, **__: nullcontext(recognizer))
    monkeypatch.setattr(server, "GracefulServer", Asked)
    doors = ("--auth", "ann:secret", "--token-file", tmp_path / "tokens", "--allowed-host", "video.example")
    offers = ("--folder-root", clip_folder, "--allow-webhook", "hooks.example", "--max-upload-mb", "1")
    done = run("serve", "--port", "0", *doors, *offers)
    assert done.status == 0, done.err
    statuses = {name: answer.status_code for name, answer in answers.items()}
    expected = {"stranger": 401, "program": 200, "foreign": 403, "large": 413, "file": 404, "hook": 422, "late": 503}
    assert statuses == expected
    assert "hooks.example" in answers["hook"].json()["message"]
    assert "The server is ending" in answers["late"].json()["message"]


def test_the_limits_are_those_that_are_written_down() -> None:
    """Other tests take shorter ones."""
    page = " ".join((Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8").split())
    for limit, most, words in (
        (LimitedConnection.head_seconds, 10, "The head of a request has {:g} seconds"),
        (body_limit.IDLE_SECONDS, 60, "a body {:g} between two parts"),
        (LimitedConnection.read_seconds, 60, "takes nothing of its answer is left after {:g}"),
        (body_limit.MAX_BODY_BYTES / MEGABYTE, 1, "A body that is not an upload may have {:g} MiB"),
        (login.MAX_WRONG, 20, "try a password ({:g} wrong ones from an address"),
        (login.MAX_WRONG_OVERALL, 20, ""),
        (application.MAX_SESSIONS, 500, "at most {:g} visitors are remembered"),
    ):
        assert limit <= most
        assert words.format(limit) in page


def test_the_page_names_no_other_host(start: StartClient) -> None:
    page = start().get("/").text
    fetched = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']([^\"']+)", page)
    assert fetched
    assert not [address for address in fetched if re.match(r"(https?:)?//(?!127\.0\.0\.1)", address)]


def test_limits_are_stated_and_enforced(start: StartClient, tmp_path: Path) -> None:
    client = start(max_upload_mb=1)
    assert "Up to 1 MB, 24 hours and 36 megapixels a frame." in client.get("/").text
    assert upload(client, MEGABYTE).status_code == 200
    assert upload(client, MEGABYTE + 1).status_code in (400, 413)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1, "what was refused is not kept"


def test_uploads_are_deleted_when_the_server_ends(start: StartClient, tmp_path: Path) -> None:
    client = start()
    (address,) = upload(client, 10).json()
    (path,) = tmp_path.rglob("clip.mp4")
    assert address.endswith(f"/{path.parent.name}/clip.mp4")
    client.__exit__(None, None, None)
    assert not path.exists()


def test_nothing_is_public_but_the_page_and_three_endpoints(start: StartClient) -> None:
    client = start()
    assert list(client.get("/gradio_api/info").json()["named_endpoints"]) == ["/classify", "/explain", "/timeline"]
    assert client.post("/gradio_api/process_recording", files={"video": b"\0"}).status_code == 404
    assert client.get("/gradio_api/deep_link", params={"session_hash": "x"}).status_code == 404
    assert client.get("/docs").status_code == 404


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_upload_mb": 0}, "--max-upload-mb 0 should be at least 1"),
        ({"auth": ("ann", "")}, "--auth should be"),
        ({"folder_root": Path("no such folder")}, "--folder-root 'no such folder' should be a folder that exists"),
    ],
)
def test_wrong_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        serve(**arguments)


@pytest.mark.parametrize("address", ["taken", "nowhere"])
def test_an_address_that_cannot_be_had(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = "127.0.0.1" if address == "taken" else "192.0.2.1"  # RFC 5737: nobody's
        with pytest.raises(UsageError, match=r"cannot listen on .* Choose another --host or --port"):
            serve(host=host, port=listener.getsockname()[1])


@pytest.mark.slow
def test_a_server_that_is_told_to_end_answers_what_it_was_asked_and_leaves_nothing_behind(
    tmp_path: Path, tiny_model: Path, clip_folder: Path
) -> None:
    clip, folder = clip_folder / "a.mp4", tmp_path / "server"
    folder.mkdir()
    elsewhere = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "pytorch")}  # PyTorch makes it, or does not, and keeps it
    with (
        serving(folder, "--model", str(tiny_model), environment=elsewhere) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        assert client.get("/healthz").json()["models"] == ["tiny"]
        assert press(client, clip).status_code == 200
        assert list(folder.rglob("a.mp4"))
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": SESSION}) as stream:
            said = messages(stream)
            assert any(message["msg"] == "process_starts" for message in said)
            server.process.send_signal(signal.SIGTERM)
            rest = list(said)
        assert [message["success"] for message in rest if message["msg"] == "process_completed"] == [True], rest
        (address,) = set(re.findall(r'"url": "(http[^"]+\.mp4)"', json.dumps(rest)))
        overlay = client.get(address)
        assert (overlay.status_code, overlay.headers["content-type"]) == (200, "video/mp4")
        assert press(client, clip).status_code == 503, "no new one is begun"
        assert server.process.wait(STOP_WITHIN_SECONDS) == 0
    assert os.listdir(folder) == []
