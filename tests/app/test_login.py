"""Log-in: who is let in, and how often a password may be wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import fastapi
import pytest
from fastapi.testclient import TestClient
from starlette.routing import Route

from nonlocal_video.app import login
from nonlocal_video.app.application import create_app
from nonlocal_video.app.login import HOME, OPEN, Attempts, Login, read_tokens
from nonlocal_video.app.server import serve
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.recognizer import Recognizer

TOKEN = "a-token-that-nobody-would-guess"
ADDRESS = "192.0.2.7"


@pytest.fixture(scope="module")
def closed(recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastapi.FastAPI]:
    """The whole server, behind a password."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        app = create_app([recognizer], auth=("ann", "secret"), tokens=[TOKEN])
        with TestClient(app):
            yield app


def client(app: fastapi.FastAPI) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/heartbeat/anything"),
        ("GET", "/gradio_api/startup-events"),
        ("GET", "/gradio_api/app_id"),
        ("POST", "/gradio_api/cancel"),
        ("POST", "/gradio_api/reset"),
        ("POST", "/gradio_api/queue/join"),
        ("GET", "/config"),
        ("GET", "/v1/docs"),
        ("GET", "/v1/openapi.json"),
        ("POST", "/v1/classify"),
        ("GET", "/v1/jobs/anything"),
        ("GET", "/no/such/route"),
        ("GET", "/static/../config"),
    ],
)
def test_nothing_is_answered_without_a_session(closed: fastapi.FastAPI, method: str, path: str) -> None:
    response = client(closed).request(method, path)
    assert response.status_code == 401
    assert response.json()["code"] == "unauthorized"
    assert "Bearer" in response.headers["www-authenticate"]


def all_routes(app: fastapi.FastAPI) -> list[tuple[str, str]]:
    """Each method and path that the server has, Gradio's own included, with something for each parameter."""
    waiting, routes = list(app.routes), []
    while waiting:
        route = waiting.pop()
        if isinstance(route, Route):
            routes.append(route)
        else:  # a mount; or a router that was included, in releases of FastAPI that keep them whole
            waiting += getattr(getattr(route, "original_router", route), "routes", ())
    return [(method, re.sub(r"{.*?}", "x", route.path)) for route in routes for method in sorted(route.methods or ())]


def test_each_route_needs_a_session_but_those_of_the_sign_in(closed: fastapi.FastAPI) -> None:
    routes, visitor = all_routes(closed), client(closed)
    assert len(routes) > 60
    assert {path for _, path in routes} >= {"/v1/classify", "/config", "/gradio_api/heartbeat/x", "/gradio_api/upload"}
    opened = set()
    for method, path in routes:
        if path in (HOME, *OPEN):
            opened.add(path)
        elif path.rstrip("/") != "/login":
            assert visitor.request(method, path).status_code == 401, (method, path)
    assert opened == {"/", "/healthz", "/favicon.ico", "/manifest.json", "/robots.txt"}


def test_no_route_is_changed_by_the_page_of_another_site(closed: fastapi.FastAPI) -> None:
    program = client(closed)
    headers = {"Origin": "https://evil.example", "Authorization": f"Bearer {TOKEN}"}
    changing = [(method, path) for method, path in all_routes(closed) if method not in ("GET", "HEAD")]
    assert len(changing) > 15
    for method, path in changing:
        response = program.request(method, path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "cross_site"), (method, path)


def test_the_sign_in_opens_the_rest(closed: fastapi.FastAPI) -> None:
    visitor = client(closed)
    stranger = visitor.get("/").text
    assert "Sign in" in stranger
    assert "gradio" not in stranger, "nothing of the page but its name"
    assert visitor.post("/login", data={"username": "ann", "password": "secret"}).status_code == 200
    assert "gradio_config" in visitor.get("/").text
    assert visitor.get("/v1/openapi.json").status_code == 200
    assert visitor.get("/gradio_api/startup-events").status_code == 200


def test_programs_have_tokens_or_the_password(closed: fastapi.FastAPI) -> None:
    program = client(closed)
    for right in ({"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"bearer  {TOKEN} "}):
        assert program.get("/v1/openapi.json", headers=right).status_code == 200
    assert program.get("/v1/openapi.json", auth=("ann", "secret")).status_code == 200
    for wrong in ("Bearer wrong", "Bearer", "Basic ?", "Basic YW5u", f"Digest {TOKEN}", f"Basic {TOKEN}"):
        assert program.get("/v1/openapi.json", headers={"Authorization": wrong}).status_code == 401


def door(attempts: Attempts) -> TestClient:
    """A door in front of a sign-in whose password is `right`."""
    app = fastapi.FastAPI()

    @app.post("/login")
    async def sign_in(request: fastapi.Request) -> fastapi.Response:
        return fastapi.Response(status_code=200 if await request.body() == b"right" else 400)

    app.add_middleware(Login, auth=("ann", "secret"), tokens=(TOKEN,), user_of=lambda _: None, attempts=attempts)
    return client(app)


def test_wrong_passwords_have_to_wait_longer_and_longer() -> None:
    now = [0.0]
    visitor = door(Attempts(lambda: now[0]))
    for _ in range(login.MAX_WRONG):
        assert visitor.post("/login", content=b"wrong").status_code == 400
    waits = []
    for _ in range(3):
        refused = visitor.post("/login", content=b"right")
        assert refused.status_code == 429, "even a right one"
        waits.append(int(refused.headers["retry-after"]))
        assert f"{waits[-1]} seconds" in refused.json()["message"]
        now[0] += waits[-1]
        assert visitor.post("/login", content=b"wrong").status_code == 400
    assert waits == [30, 60, 120]
    assert visitor.get("/v1/x", auth=("ann", "secret")).status_code == 429, "the same count for both ways in"
    assert visitor.get("/v1/x", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 404, "tokens do not wait"
    now[0] += 240
    assert visitor.post("/login", content=b"right").status_code == 200
    assert visitor.post("/login", content=b"wrong").status_code == 400, "counted from the beginning"


def test_many_addresses_together_have_to_wait() -> None:
    attempts = Attempts(lambda: 0.0)
    for number in range(login.MAX_WRONG_OVERALL):
        assert attempts.seconds_to_wait(f"192.0.2.{number}") == 0
        attempts.begin(f"192.0.2.{number}")
    assert attempts.seconds_to_wait("198.51.100.1") == login.FIRST_WAIT_SECONDS


def test_the_wait_has_an_end_and_the_memory_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for _ in range(60):
        attempts.begin(ADDRESS)
    assert attempts.seconds_to_wait(ADDRESS) == login.LONGEST_WAIT_SECONDS
    now[0] = login.LONGEST_WAIT_SECONDS + 1
    attempts.begin(ADDRESS)
    assert attempts.seconds_to_wait(ADDRESS) == 0, "an hour without one is forgiven"
    monkeypatch.setattr(login, "MAX_ADDRESSES", 5)
    for number in range(20):
        attempts.begin(f"198.51.100.{number}")
    assert len(attempts._wrong) == 5
    assert attempts.seconds_to_wait("192.0.2.99") > 0, "the count of all is not forgotten with them"


def test_right_passwords_never_wait() -> None:
    attempts = Attempts(lambda: 0.0)
    for _ in range(100):
        attempts.begin(ADDRESS)
        attempts.right(ADDRESS)
    assert attempts.seconds_to_wait(ADDRESS) == 0


def test_a_file_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# for the camera\n{TOKEN}\n\n  {TOKEN[::-1]}  \n")
    assert read_tokens(path) == (TOKEN, TOKEN[::-1])


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"short\n", b"\xff\xfe" * 20, None])
def test_a_file_without_good_tokens_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"--token-file '.*tokens'"):
        serve(auth=("ann", "secret"), token_file=path)


def test_tokens_without_a_password_would_protect_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--token-file needs --auth"):
        serve(token_file=tmp_path / "tokens")
