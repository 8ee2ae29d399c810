"""Addresses that a webhook may have, and a host that does not stop answering."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
from urllib3.util import parse_url

from nonlocal_video.app import webhooks
from nonlocal_video.app.webhooks import check_webhook, post_json
from nonlocal_video.errors import UsageError

HOSTS = ("Hooks.example", "192.0.2.7", "2001:db8::7")


def asked(webhook: str) -> str | None:
    """The host that `requests` would ask."""
    url = requests.Request("POST", webhook).prepare().url
    assert url is not None
    host = parse_url(url).host
    return host and host.strip("[]")


@pytest.mark.parametrize(
    "webhook",
    [
        "https://hooks.example",
        "http://hooks.example/",
        "HTTPS://HOOKS.example:8443/done?job=1&x=%20#there",
        "http://hooks.example?job=1",
        "http://192.0.2.7:1/~x/{id}/@y:z",
        "http://[2001:db8::7]:80/x",
    ],
)
def test_addresses_on_allowed_hosts(webhook: str) -> None:
    check_webhook(webhook, HOSTS)
    assert asked(webhook) in {host.lower() for host in HOSTS}


@pytest.mark.parametrize(
    "webhook",
    [
        "http://evil.example\\@hooks.example/",  # asks evil.example
        "http://evil.example:80\\\\@hooks.example:80/",
        "http://evil.example@hooks.example/",
        "http://hooks.example@evil.example/",
        "http://user:word@hooks.example/",
        "http://evil.example#@hooks.example/",
        "http://evil.example?@hooks.example/",
        "http://evil.example/@hooks.example",
        "http://evil.example;@hooks.example/",
        "http://evil.example\t@hooks.example/",
        "http://evil.example\n@hooks.example/",
        "http://hooks.example.evil.example/",
        "http://hooks.example%2eevil.example/",
        "http://evil.example%23@hooks.example/",
        "http://hooks.example./",
        "http://\uff48ooks.example/",
        "http://hooks.example/a b",
        "http://hooks.example/\\x",
        "http://hooks.example/\r\nX: y",
        "http://hooks.example/\0",
        "http://hooks.example:0/",
        "http://hooks.example:65536/",
        "http://hooks.example:-1/",
        "http://hooks.example:80:80/",
        "http://[hooks.example]/",
        "http://[2001:db8::7%25lo]/",
        "http:hooks.example/",
        "http:///hooks.example/",
        "http:\\\\hooks.example/",
        "//hooks.example/",
        "ftp://hooks.example/",
        "file://hooks.example/x",
        " http://hooks.example/",
        "http://192.0.2.8/",
        "http://3221225991/",  # 192.0.2.7, and not said so
        "",
    ],
)
def test_other_addresses_are_refused(webhook: str) -> None:
    with pytest.raises(UsageError, match=r"--allow-webhook HOST.*: Hooks\.example"):
        check_webhook(webhook, HOSTS)


def test_the_refusal_says_that_no_host_is_allowed() -> None:
    with pytest.raises(UsageError, match=r"\(--allow-webhook HOST\): none"):
        check_webhook("http://hooks.example/", ())


def test_an_answer_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "WEBHOOK_SECONDS", 2)
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while not ended.wait(0.05):
                    self.wfile.write(b"more")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        sent = threading.Thread(target=post_json, args=[f"http://127.0.0.1:{server.server_port}/", {}], daemon=True)
        began = time.monotonic()
        sent.start()
        sent.join(10)
        took = time.monotonic() - began
        ended.set()
        thread.join()
        sent.join(10)
    assert took < 2
