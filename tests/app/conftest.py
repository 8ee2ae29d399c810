"""A browser, and a page in it that must not talk to any other host."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from absent import absent
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright
from serving import Server, serving

from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",  # containers, where the tests run as root, have none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a camera
)
_FILE = re.compile(r"/gradio_api/file=/[\w-]{22}/")
OWN_HOSTS = ("127.0.0.1", "")  # data: and blob: have none


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        message = f"no browser: none of {', '.join(CHROMIUM_NAMES)} is on PATH"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        absent(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def small_server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, clip_folder: Path) -> Iterator[Server]:
    """The page with a small model, whose answers mean nothing, and a folder that it offers."""
    folder = tmp_path_factory.mktemp("small")
    with serving(folder, "--model", str(tiny_model), "--folder-root", str(clip_folder)) as server:
        yield server
    assert server.process.returncode == 0
    assert not list(folder.glob("nonlocal-video-*")), "nothing is left of all that was sent"


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Iterator[Recognizer]:
    """A small model, whose answers mean nothing."""
    with load(tiny_model, device="cpu") as recognizer:
        yield recognizer


@pytest.fixture(scope="module")
def explanation(recognizer: Recognizer, clip_folder: Path) -> Explanation:
    """Explanation that is kept of a clip for later questions."""
    return recognizer.explain_all(clip_folder / "a.mp4")


@pytest.fixture(scope="session")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """What visitors share: the cache alone, as the page's scripts take a browser without it two seconds."""
    with closing(browser.new_context(viewport={"width": 1280, "height": 900})) as context:
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A fresh visitor.

    Whatever the test does, nothing may be asked of another host, no script may fail, and no address may name a path.
    """
    page = context.new_page()
    off_host: list[str] = []
    failures: list[str] = []
    paths: list[str] = []
    origins: set[str] = set()

    def check_host(url: str) -> None:
        parts = urlsplit(url)
        if (parts.hostname or "") not in OWN_HOSTS:
            off_host.append(url)
        if "/gradio_api/file" in url and not _FILE.search(unquote(url)):
            paths.append(url)
        if parts.scheme == "http":
            origins.add(f"{parts.scheme}://{parts.netloc}")

    def check_request(request: Request) -> None:
        check_host(request.url)

    context.on("request", check_request)
    page.on("websocket", lambda socket: check_host(socket.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    for other in context.pages:
        if other is not page:
            other.close()
    page.goto("about:blank")  # what a page keeps as it is left is forgotten, too
    browser = context.new_cdp_session(page)
    for origin in origins:
        browser.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
    page.close()
    context.clear_cookies()
    context.clear_permissions()
    context.remove_listener("request", check_request)
    assert not off_host
    assert not failures
    assert not paths
