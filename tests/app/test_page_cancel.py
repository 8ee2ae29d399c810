"""Cancelling, and several visitors at once: a real browser, a small model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect
from serving import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WITHIN_MS = 60_000


def choose(page: Page, small_server: Server, clip: Path) -> None:
    page.goto(small_server.url)
    page.locator("#clip input[type=file]").set_input_files(clip)
    expect(page.locator("#recognise")).to_be_enabled(timeout=WITHIN_MS)


def recognise(page: Page) -> None:
    page.locator("#recognise").click()
    expect(page.locator("#strip img").first).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#recognise")).to_be_enabled(timeout=WITHIN_MS)


@pytest.fixture
def decoder(small_server: Server) -> Iterator[psutil.Process]:
    """The process that decodes for recognitions; while it is suspended, they wait for their frames."""
    (child,) = psutil.Process(small_server.process.pid).children()
    yield child
    child.resume()


def test_a_recognition_is_cancelled_and_the_page_goes_on(
    page: Page, small_server: Server, clip_folder: Path, request: pytest.FixtureRequest
) -> None:
    choose(page, small_server, clip_folder / "a.mp4")
    expect(page.locator("#recognise-cancel")).to_be_disabled()
    recognise(page)
    decoder: psutil.Process = request.getfixturevalue("decoder")
    decoder.suspend()
    page.locator("#recognise").click()
    status = page.locator("#status")
    expect(status).to_contain_text("Reading the clip", timeout=WITHIN_MS)
    expect(page.locator("#recognise")).to_be_disabled()
    page.locator("#recognise-cancel").click()
    expect(status).to_contain_text("Cancelled. Press Recognise to begin again.", timeout=WITHIN_MS)
    expect(page.locator("#results")).to_be_hidden()
    expect(page.locator("#recognise-cancel")).to_be_disabled()
    page.get_by_role("tab", name="Ask a point").click()
    expect(page.locator("#ask-invitation")).to_be_visible()
    page.get_by_role("tab", name="Recognise").click()
    decoder.resume()
    recognise(page)
    expect(page.locator("#scores h2")).to_have_text(re.compile(r"action \d"))


def test_who_waits_may_cancel_and_each_visitor_gets_the_own_answer(
    browser: Browser, page: Page, small_server: Server, clip_folder: Path, request: pytest.FixtureRequest
) -> None:
    context = browser.new_context()
    other = context.new_page()
    choose(page, small_server, clip_folder / "a.mp4")  # 8 frames from 0.60 s on
    choose(other, small_server, clip_folder / "z with space.mp4")  # 5 frames from 0.00 s on
    recognise(page)
    decoder: psutil.Process = request.getfixturevalue("decoder")
    decoder.suspend()
    page.locator("#recognise").click()
    expect(page.locator("#status")).to_contain_text("Reading the clip", timeout=WITHIN_MS)
    other.locator("#recognise").click()
    expect(other.locator("#status")).to_contain_text("queue: 1/1", timeout=WITHIN_MS)
    other.locator("#recognise-cancel").click()
    expect(other.locator("#status")).to_contain_text("Cancelled.", timeout=WITHIN_MS)
    other.locator("#recognise").click()
    expect(other.locator("#status")).to_contain_text("queue: 1/1", timeout=WITHIN_MS)
    decoder.resume()
    for visitor, first in ((page, "0.60 s"), (other, "0.00 s")):
        expect(visitor.locator("#strip img").first).to_have_attribute("alt", first, timeout=WITHIN_MS)
    expect(page.locator("#status")).to_contain_text("0.60-1.40 s")
    expect(other.locator("#status")).to_contain_text("looped")
    context.close()


def test_a_folder_run_is_stopped(page: Page, small_server: Server, clip_folder: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"clip {number}.mp4" for number in range(40)]
    for file in files:
        file.write_bytes((clip_folder / "a.mp4").read_bytes())
    page.goto(small_server.url)
    page.get_by_role("tab", name="Folder").click()
    page.locator("#files input[type=file]").set_input_files(files)
    expect(page.locator("#files")).to_contain_text("clip 39", timeout=WITHIN_MS)
    page.locator("#folder-start").click()
    status = page.locator("#folder-status")
    page.locator("#folder-stop:enabled").click(timeout=WITHIN_MS)
    expect(status).to_contain_text(re.compile(r"Stopped\. \d+ of 40 files: \d+ ok\."), timeout=WITHIN_MS)
    found = re.search(r"(\d+) of 40", status.inner_text())
    assert found is not None
    assert int(found[1]) < 40
    with page.expect_download() as download:
        page.locator("#folder-downloads a").first.click()
    assert len(download.value.path().read_text().splitlines()) == int(found[1]) + 1, "a row for each, and the header"
    expect(page.locator("#folder-start")).to_be_enabled()
