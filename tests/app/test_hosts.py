"""The names that the server answers to, and pages of other sites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastapi
import pytest
from fastapi.testclient import TestClient

from nonlocal_video.app.application import create_app
from nonlocal_video.app.hosts import OwnHosts
from nonlocal_video.inference.recognizer import Recognizer


@pytest.fixture(scope="module")
def client() -> TestClient:
    """A server that permits every site everything, behind the check."""
    app = fastapi.FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE", "OPTIONS", "HEAD"])
    def anything(path: str) -> fastapi.Response:
        return fastapi.Response(
            headers={"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true", "X-Kept": "yes"}
        )

    app.add_middleware(OwnHosts, allowed=["Video.Example.org"])
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:7860", "app.localhost", "127.0.0.1:7860", "192.0.2.4", "[::1]:7860", "[2001:db8::1]",
     "[::ffff:127.0.0.1]", "127.0.0.1.", "localhost:",
     "video.example.org", "video.example.org.:443"],
)  # fmt: skip
def test_own_names(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost", "",
     "video.example.org.evil.example", "www.video.example.org", "[::1", "127.0.0.1@evil.example",
     "evil.example#localhost",
     # readers differ about which part of these is the name
     "evil.example@127.0.0.1", "user:word@localhost", "localhost#evil", "localhost/evil", "localhost?evil",
     "localhost\\evil", "[::1]evil", "localhost:port", "localhost:123456", "127.0.0.1, evil.example",
     "127.1", "0x7f.1", "2130706433",
     "x" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("header", ["Host", "X-Forwarded-Host"])
def test_other_names_are_refused_with_the_remedy(client: TestClient, host: str, header: str) -> None:
    response = client.post("/", headers={header: host})
    assert (response.status_code, response.json()["code"]) == (403, "unknown_host")
    assert "--allowed-host" in response.json()["message"]
    assert len(response.text) < 400


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/", {}, 200),  # a program
        ("POST", "/", {"Origin": "http://127.0.0.1"}, 200),
        ("POST", "/", {"Origin": "https://127.0.0.1"}, 200),  # behind TLS; the proxy's port is not ours to know
        ("POST", "/", {"Origin": "http://127.0.0.1:80"}, 200),
        ("POST", "/", {"Origin": "https://video.example.org"}, 200),
        ("POST", "/", {"Origin": "https://video.example.org", "X-Forwarded-Host": "video.example.org"}, 200),
        ("POST", "/", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", "/", {"Sec-Fetch-Site": "none"}, 200),
        ("POST", "/", {"Origin": "http://127.0.0.1:3000"}, 403),
        ("POST", "/", {"Origin": "http://localhost"}, 403),
        ("POST", "/", {"Origin": "null"}, 403),
        ("POST", "/", {"Origin": ""}, 403),
        ("POST", "/", {"Origin": "https://evil.example"}, 403),
        ("POST", "/", {"Origin": "https://[evil"}, 403),
        ("POST", "/", {"Origin": "file://127.0.0.1"}, 403),
        ("POST", "/", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/", {"Sec-Fetch-Site": "same-site"}, 403),
        ("DELETE", "/v1/jobs/x", {"Origin": "https://evil.example"}, 403),
        ("OPTIONS", "/", {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}, 403),
        ("GET", "/logout", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("GET", "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link to the page
        ("GET", "/gradio_api/heartbeat/x", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
        ("GET", "/file.mp4", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", "/file.mp4", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"}, 200),
    ],
)
def test_pages_of_other_sites(client: TestClient, method: str, path: str, headers: dict[str, str], status: int) -> None:
    response = client.request(method, path, headers=headers)
    assert response.status_code == status
    assert not [name for name in response.headers if name.startswith("access-control-")]
    if status == 403:
        assert response.json()["code"] == "cross_site"
    else:
        assert response.headers["x-kept"] == "yes"


def test_the_server_checks_names_and_sites(
    recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradio permits pages of other ports of this machine; this server does not."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
    with TestClient(create_app([recognizer], allowed_hosts=["video.example"]), base_url="http://127.0.0.1") as client:
        assert client.get("/healthz", headers={"Host": "video.example"}).status_code == 200
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 403
        other = {"Origin": "http://localhost:3000", "Host": "localhost:7860"}
        assert "access-control-allow-origin" not in client.get("/config", headers=other).headers
        for route in ("/gradio_api/cancel", "/gradio_api/queue/join", "/gradio_api/upload", "/v1/classify"):
            assert client.post(route, headers=other).json()["code"] == "cross_site"


@pytest.mark.parametrize("way", ["options", "variable"])
def test_several_names_are_allowed(
    run: Callable[..., Any],
    recognizer: Recognizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """Pass names from the command line to the application's host check."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("nonlocal_video.app.serve", lambda **how: given.append(how), raising=False)
    names = ["a.example", "B.example"]
    if way == "variable":
        monkeypatch.setenv("NONLOCAL_VIDEO_ALLOWED_HOST", " ".join(names))
        done = run("serve")
    else:
        done = run("serve", "--allowed-host", names[0], "--allowed-host", names[1])
    assert done.status == 0, done.err
    allowed = given[0]["allowed_hosts"]
    assert list(allowed) == names
    with TestClient(create_app([recognizer], allowed_hosts=allowed), base_url="http://127.0.0.1") as client:
        statuses = {
            name: client.get("/healthz", headers={"Host": name}).status_code
            for name in ("a.example:7860", "b.example", "c.example", "a.example.evil.example")
        }
    assert list(statuses.values()) == [200, 200, 403, 403]
