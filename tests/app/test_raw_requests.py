"""Requests by hand to a real server: bodies whose length is wrong, and heads that no browser sends."""

from __future__ import annotations

import gzip
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from serving import Server

from nonlocal_video.app.body_limit import MAX_BODY_BYTES

pytestmark = pytest.mark.slow  # starts the server

NEXT = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
WITHIN_SECONDS = 30
PATHS = ("/v1/classify", "/gradio_api/queue/join", "/gradio_api/upload", "/live")
FORM = b"--x--\r\n"
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
BOMB = gzip.compress(bytes(50_000_000))


def ask(server: Server, request: bytes) -> list[tuple[int, str]]:
    """Send bytes and nothing more; return the status and the code or the body of each answer until the server ends."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=WITHIN_SECONDS) as connection:
        connection.sendall(request)
        file, answers = connection.makefile("rb"), []
        while status := file.readline():
            headers = {}
            while (line := file.readline().strip()) != b"":
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            body = json.loads(file.read(int(headers["content-length"])))
            code = body.get("code", body) if isinstance(body, dict) else body
            answers.append((int(status.split()[1]), code))
            if headers.get("connection") == "close":
                with suppress(ConnectionResetError):  # of what the server did not read
                    assert file.read() == b"", "the server ends the connection, as it says"
                return answers
        return answers


def post(path: str, *headers: str, body: bytes = b"") -> bytes:
    kind = "multipart/form-data; boundary=x" if path.startswith("/v1") else "application/json"
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {kind}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        (["Content-Length: 1", "Content-Length: 2"], b"{}", 400, "invalid_request"),
        (["Content-Length: 1, 2"], b"{}", 400, "invalid_request"),
        (["Content-Length: 7", CHUNKED], b"2\r\n{}\r\n0\r\n\r\n", 400, "invalid_request"),
        ([CHUNKED, CHUNKED], b"2\r\n{}\r\n0\r\n\r\n", 400, "invalid_request"),
        (["Transfer-Encoding: gzip, chunked"], b"2\r\n{}\r\n0\r\n\r\n", 400, "invalid_request"),
        (["Content-Length: -1"], b"{}", 400, "invalid_request"),
        (["Content-Length: two"], b"{}", 400, "invalid_request"),
        (["Content-Length: +2"], b"{}", 400, "invalid_request"),
        (["Content-Length: 0x2"], b"{}", 400, "invalid_request"),
        (["Content-Length:"], b"{}", 400, "invalid_request"),
        (["Content-Length: " + "9" * 5000], b"", 400, "invalid_request"),
        (["Content-Length: " + "9" * 20], b"", 413, "too_large"),
        (["Content-Length: 99999999999"], b"", 413, "too_large"),
        ([CHUNKED], b"zz\r\n{}\r\n0\r\n\r\n", 400, "invalid_request"),
        ([CHUNKED], b"-2\r\n{}\r\n0\r\n\r\n", 400, "invalid_request"),
    ],
)
def test_a_length_that_is_wrong_is_refused_and_the_connection_ends(
    small_server: Server, headers: list[str], body: bytes, status: int, code: str
) -> None:
    """A request behind it is not read either: it could be another one to another reader."""

    def answers(path: str) -> list[tuple[int, str]]:
        return ask(small_server, post(path, *headers, body=body) + NEXT)

    with ThreadPoolExecutor(len(PATHS)) as pool:  # together: the server listens on for seconds after some refusals
        told = dict(zip(PATHS, pool.map(answers, PATHS), strict=True))
    assert told == {path: [(status, code)] for path in PATHS}


def test_what_is_longer_than_its_length_is_the_next_request(small_server: Server) -> None:
    """The first answer does not see it (RFC 9112, 6.3), and it has to be a request itself."""
    request = post("/v1/classify", f"Content-Length: {len(FORM)}", body=FORM)
    assert [status for status, _ in ask(small_server, request + NEXT)] == [422, 200]
    assert ask(small_server, request + b"more of it\r\n\r\n") == [(422, "invalid_argument"), (400, "invalid_request")]


def test_what_is_shorter_than_its_length_is_waited_for_and_never_answered(small_server: Server) -> None:
    """The server waits 60 s (see test_body_limit); a sender who says that nothing more comes is left at once."""
    address = urlsplit(small_server.url)
    with socket.create_connection((address.hostname, address.port), timeout=WITHIN_SECONDS) as connection:
        connection.sendall(post("/v1/classify", "Content-Length: 100", body=FORM))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


def test_a_body_in_parts_is_cut_at_the_limit(small_server: Server) -> None:
    size = MAX_BODY_BYTES + 1
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"[" * size)
    assert ask(small_server, post("/gradio_api/queue/join", CHUNKED, body=body)) == [(413, "too_large")]


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        ("GET /healthz HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        ("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", 400, "invalid_request"),
        ("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX : y\r\n\r\n", 400, "invalid_request"),
        ("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\0b\r\n\r\n", 400, "invalid_request"),
        ("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + "y" * 300_000 + "\r\n\r\n", 400, "invalid_request"),
        ("GET /caf\xe9 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400, "invalid_request"),
        ("\x16\x03\x01\x02\0\x01\0\r\n\r\n", 400, "invalid_request"),  # TLS
    ],
)
def test_a_head_that_is_no_http_is_refused(small_server: Server, head: str, status: int, code: str) -> None:
    assert ask(small_server, head.encode("latin-1")) == [(status, code)]


@pytest.mark.parametrize("method", ["FOO", "PROPFIND", "get"])
def test_a_method_that_nobody_knows(small_server: Server, method: str) -> None:
    request = f"{method} /v1/docs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    assert ask(small_server, request.encode()) == [(405, "method_not_allowed")]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /healthz HTTP/1.0", 200),
        ("GET /%68ealthz HTTP/1.1", 200),
        ("GET http://evil.example/healthz HTTP/1.1", 404),
        ("GET //evil.example/healthz HTTP/1.1", 404),
        ("GET /v1/../healthz HTTP/1.1", 404),
        ("GET /assets/..%2f..%2fconfig HTTP/1.1", 403),
        ("GET /static/%2e%2e/%2e%2e/etc/passwd HTTP/1.1", 403),
        ("GET /HEALTHZ HTTP/1.1", 404),
        ("GET /healthz%00 HTTP/1.1", 404),
        ("GET /healthz%0d%0aX:y HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 404),
        ("CONNECT evil.example:443 HTTP/1.1", 404),
        ("GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13", 200),
        ("GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c", 200),
        ("GET /healthz HTTP/1.1\r\nExpect: 200-ok", 200),
        ("GET /healthz HTTP/1.1\r\nX-Original-URL: /config\r\nForwarded: host=evil.example", 200),
        ("GET /healthz HTTP/1.1" + "".join(f"\r\nCookie: a{number}=b" for number in range(1000)), 200),
        ("GET /healthz HTTP/1.1\r\nX: " + "y" * 60_000, 200),
    ],
)
def test_odd_heads_lead_nowhere_else(small_server: Server, head: str, status: int) -> None:
    line, _, rest = head.partition("\r\n")
    request = "\r\n".join([line, "Host: 127.0.0.1", *([rest] if rest else []), "Connection: close", "", ""])
    (answer,) = ask(small_server, request.encode())
    assert answer[0] == status
    assert "passwd" not in str(answer[1])


def test_requests_one_after_another_are_answered_in_order(small_server: Server) -> None:
    two = b"".join(
        NEXT.replace(b"Connection: close\r\n", b"").replace(b"/healthz", path) for path in (b"/healthz", b"/x")
    )
    answers = ask(small_server, 100 * two + NEXT)
    assert [status for status, _ in answers] == [200, 404] * 100 + [200]


@pytest.mark.parametrize(
    ("path", "kind", "content", "statuses"),
    [
        ("/v1/classify", "multipart/form-data; boundary=x", 10_000 * FIELD + FORM, [400]),
        ("/v1/classify", "multipart/form-data; boundary=x", FIELD, [422]),
        ("/v1/classify", "multipart/form-data; boundary=" + "x" * 5000, b"--" + b"x" * 5000 + b"--\r\n", [400]),
        ("/v1/classify", "multipart/form-data; boundary=x; charset=utf-16", FIELD + FORM, [422]),
        ("/v1/classify", "multipart/form-data; boundary=x", BOMB, [422]),
        ("/gradio_api/queue/join", "application/json", BOMB, [400]),
        *(
            (path, "application/json", content, [400, 422])
            for path in ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/call/classify")
            for content in (b"[" * 500_000 + b"]" * 500_000, b'{"data":[' + b"9" * 900_000 + b"]}", b"\xff", b"null")
        ),
    ],
)
def test_hostile_bodies_are_refused(
    small_server: Server, path: str, kind: str, content: bytes, statuses: list[int]
) -> None:
    headers = {"Content-Type": kind, **({"Content-Encoding": "gzip"} if content == BOMB else {})}
    response = httpx.post(f"{small_server.url}{path}", content=content, headers=headers, timeout=WITHIN_SECONDS)
    assert response.status_code in statuses
    assert len(response.content) < 1000


def test_nobody_follows_the_changes_of_a_page_that_does_not_change(small_server: Server) -> None:
    """Gradio would look for them twenty times a second for each who asks, for as long as the connection lasts."""
    assert httpx.get(f"{small_server.url}/gradio_api/dev/reload", timeout=5).status_code == 404
