"""A real server that many send far too much JSON: it refuses each, and still says that it is well."""

from __future__ import annotations

import http.client
import select
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from serving import Server

pytestmark = pytest.mark.slow

PATHS = ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/run/classify")
SENT_BYTES = 64 * 1024**2
PIECE = b"[" * 65_536
ANSWERS_WITHIN_SECONDS = 5


def post(server: Server, path: str, *, is_chunked: bool) -> tuple[int, bytes]:
    """Post 64 MB of JSON, or as much of it as the server takes before it answers."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.putrequest("POST", path)
    connection.putheader("Content-Type", "application/json")
    connection.putheader(*(("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", str(SENT_BYTES))))
    connection.endheaders()
    for _ in range(SENT_BYTES // len(PIECE)):
        if select.select([connection.sock], [], [], 0)[0]:  # it has answered
            break
        try:
            connection.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if is_chunked else PIECE)
        except ConnectionError:  # and does not read any more
            break
    answer = connection.getresponse()
    content = answer.status, answer.read()
    connection.close()
    return content


def test_the_health_check_answers_while_others_send_too_much(small_server: Server) -> None:
    with ThreadPoolExecutor(2 * len(PATHS)) as pool:
        sent: list[Future[Any]] = [
            pool.submit(post, small_server, path, is_chunked=is_chunked)
            for path in PATHS
            for is_chunked in (False, True)
        ]
        asked = 0
        while asked < 5 or not all(one.done() for one in sent):
            health = httpx.get(f"{small_server.url}/healthz", timeout=ANSWERS_WITHIN_SECONDS)
            assert (health.status_code, health.json()["status"]) == (200, "ok")
            asked += 1
        answers = [one.result() for one in sent]
    assert [status for status, _ in answers] == [413] * len(answers)
    assert all(b"too_large" in body for _, body in answers)
