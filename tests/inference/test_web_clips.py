"""Clips at https:// addresses: from Python as from the command line, bounded whatever the server says of the size."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import nonlocal_video as nlv
from nonlocal_video.inference import object_storage as remote
from nonlocal_video.inference.files import find_files
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.object_storage import local_copy
from nonlocal_video.inference.prediction import Failure, Prediction
from nonlocal_video.inference.request import ClipRequest

ENDLESS_MEGABYTES = 64


class Server(ThreadingHTTPServer):
    """Answers by the first part of the path: how the clip behind it comes."""

    daemon_threads = True

    def __init__(self, clip: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.clip = clip
        self.sent = 0
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_error(405)

    def do_GET(self) -> None:
        kind = self.path.split("/")[1].split("?")[0]
        self.server.asked.append(self.path)
        clip = self.server.clip
        try:
            if kind == "ranges" and (wanted := self.headers.get("Range")):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                part = clip[int(first) : int(last or len(clip)) + 1]
                self._begin(206, len(part), [("Content-Range", f"bytes {first}-{last}/{len(clip)}")])
                self._send(part)
            elif kind in ("plain", "ranges"):
                self._begin(200, len(clip), [("Accept-Ranges", "bytes")] if kind == "ranges" else [])
                self._send(clip)
            elif kind == "moved":
                self._begin(302, 0, [("Location", "/plain/clip.mp4")])
            elif kind == "nolength":
                self._begin(200, None)
                self._send(clip)
            elif kind == "endless":
                self._begin(200, None)
                for _ in range(ENDLESS_MEGABYTES):
                    self._send(bytes(1024 * 1024))
            elif kind == "page":
                page = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<title>A clip</title><video src=clip.mp4></video>"
                self._begin(200, len(page))
                self._send(page)
            elif kind == "huge":
                self._begin(200, 10**12)
                self._send(bytes(1024))
            elif kind == "cut":
                self._begin(200, len(clip))
                self._send(clip[: len(clip) // 2])
            elif kind == "silent":
                self._begin(200, len(clip))
                self._send(clip[:100])
                time.sleep(3)
            elif kind == "trickle":
                self._begin(200, len(clip))
                for _ in range(30):
                    self._send(clip[:1])
                    time.sleep(0.1)
            else:
                self.send_error(int(kind))
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True

    def _begin(self, status: int, length: int | None, more: list[tuple[str, str]] | None = None) -> None:
        self.send_response(status)
        for name, value in more or ():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()
        self.server.sent += len(data)


@pytest.fixture
def server(clip_folder: Path) -> Iterator[Server]:
    with Server((clip_folder / "a.mp4").read_bytes()) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()


@pytest.mark.parametrize(
    "address",
    ["plain/clip.mp4", "ranges/clip.mp4", "nolength/clip", "moved/clip.mp4", "plain/clip.mp4?key=a/b.c&d=.xyz"],
)
@pytest.mark.slow
def test_python_takes_the_address_that_the_command_line_takes(
    server: Server, tiny_model: Path, clip_folder: Path, run: Callable[..., Any], address: str
) -> None:
    url = f"{server.url}/{address}"
    with nlv.load(tiny_model, device="cpu") as recognizer:
        found = recognizer.classify(url)
        expected = recognizer.classify(clip_folder / "a.mp4")
    assert found.path == url
    assert found.scores.tolist() == expected.scores.tolist()
    server.asked.clear()
    done = run("classify", url, "--model", tiny_model, "--json")
    row = json.loads(done.out)
    assert (row["path"], row["status"]) == (url, "ok")
    assert [scored["score"] for scored in row["top"]] == pytest.approx([s.score for s in expected.top(5)], abs=1e-6)
    assert len([path for path in server.asked if "moved" not in path]) == 1, "a clip is fetched once"


def test_python_takes_a_folder_in_storage(tiny_model: Path, clip_folder: Path) -> None:
    import fsspec

    storage = fsspec.filesystem("memory")
    storage.put(f"{clip_folder}/", "/shelf/clips/", recursive=True)
    try:
        with nlv.load(tiny_model, device="cpu") as recognizer:
            outcomes = recognizer.classify_folder("memory://shelf/clips").outcomes
        assert [type(outcome) for outcome in outcomes].count(Prediction) == 3
        assert [o.error.code for o in outcomes if isinstance(o, Failure)] == ["not_a_video"]
    finally:
        storage.rm("/shelf", recursive=True)


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("404", "not_found", "There is no file"),
        ("403", "not_found", "403"),
        ("500", "not_found", "500"),
        ("cut", "not_found", "cannot be fetched"),
        ("page", "not_a_video", "is a web page, not a video file"),
        ("huge", "too_large", "1,000,000,000,000 bytes; the limit is 5,000,000"),
        ("endless", "too_large", "more than 5,000,000 bytes"),
    ],
)
def test_what_a_server_does_not_give_is_said(server: Server, kind: str, code: str, words: str) -> None:
    with (
        pytest.raises(nlv.VideoError, match=words) as caught,
        local_copy(f"{server.url}/{kind}/clip.mp4", max_bytes=5_000_000),
    ):
        pass
    assert caught.value.code == code
    assert server.sent < 30 * 1024 * 1024, "what comes after the limit is not fetched"


@pytest.mark.parametrize("url", ["https://www.youtube.com/watch?v=abc", "https://youtu.be/abc", "http://vimeo.com/1"])
def test_the_page_of_a_video_site_is_not_fetched(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "open_storage", lambda url: pytest.fail("asked for it"))
    with pytest.raises(nlv.VideoError, match="Download the video first") as caught, local_copy(url, max_bytes=1000):
        pass
    assert caught.value.code == "not_a_video"


def test_a_server_that_does_not_say_the_size_is_bounded_by_the_files_limit(server: Server, tiny_model: Path) -> None:
    limits = nlv.video.DecodeLimits(max_bytes=1000)
    url = f"{server.url}/nolength/clip.mp4"
    with nlv.load(tiny_model, device="cpu", limits=limits) as recognizer:
        with pytest.raises(nlv.VideoError, match="more than 1,000 bytes") as caught:
            recognizer.classify(url)
        (outcome,) = classify_files(recognizer, [url], ClipRequest())
    assert caught.value.code == "too_large"
    assert isinstance(outcome, Failure)
    assert (outcome.path, outcome.error.code) == (url, "too_large")


@pytest.mark.parametrize("kind", ["silent", "trickle"])
def test_a_slow_server_does_not_hold_the_run(server: Server, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SILENCE_SECONDS", 0.8)
    started = time.monotonic()
    with (
        pytest.raises(nlv.VideoError, match="is too slow") as caught,
        local_copy(f"{server.url}/{kind}/clip.mp4", max_bytes=10**6),
    ):
        pass
    assert caught.value.code == "timeout"
    assert time.monotonic() - started < 2.8


def test_no_page_is_read_to_find_out_whether_it_is_a_folder(server: Server) -> None:
    url = f"{server.url}/endless/clip.mp4"
    assert list(find_files([url])) == [url]
    assert server.asked == []
