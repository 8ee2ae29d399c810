"""Requests by hand to a real server: bodies whose length is wrong, and heads that no browser sends."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from serving import Server

from nonlocal_video.app.body_limit import MAX_BODY_BYTES

pytestmark = pytest.mark.slow  # starts the server

NEXT = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
WITHIN_SECONDS = 30
FORM = b"--x--\r\n"


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


@pytest.mark.parametrize("path", ["/v1/classify", "/gradio_api/queue/join", "/gradio_api/upload", "/live"])
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
    small_server: Server, path: str, headers: list[str], body: bytes, status: int, code: str
) -> None:
    """Also a request behind it is not read: it could be another one to another reader."""
    assert ask(small_server, post(path, *headers, body=body) + NEXT) == [(status, code)]


def test_what_is_longer_than_its_length_is_the_next_request(small_server: Server) -> None:
    """As HTTP says: the first answer does not see it, and it has to be a request itself."""
    request = post("/v1/classify", f"Content-Length: {len(FORM)}", body=FORM)
    assert [status for status, _ in ask(small_server, request + NEXT)] == [422, 200]
    assert ask(small_server, request + b"more of it\r\n\r\n") == [(422, "invalid_argument"), (400, "invalid_request")]


def test_what_is_shorter_than_its_length_is_waited_for_and_never_answered(small_server: Server) -> None:
    """For 60 s, see test_body_limit; a sender who says that nothing more comes is left at once."""
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
