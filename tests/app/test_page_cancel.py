"""Cancelling, and several visitors at once: a real browser, a small model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect
from serving import Server, only_decoder
from visiting import WITHIN_MS, answered, choose, open_page

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def decoder(small_server: Server) -> Iterator[psutil.Process]:
    """The process that decodes for recognitions; while it is suspended, they wait for their frames."""
    child = only_decoder(small_server)
    yield child
    with suppress(psutil.NoSuchProcess):  # replaced meanwhile
        child.resume()


def test_a_run_is_stopped_at_once_and_the_page_goes_on(
    page: Page, small_server: Server, clip_folder: Path, request: pytest.FixtureRequest
) -> None:
    open_page(page, small_server)
    choose(page, clip_folder / "a.mp4")
    answered(page)
    decoder: psutil.Process = request.getfixturevalue("decoder")
    decoder.suspend()
    choose(page, clip_folder / "z with space.mp4")
    said = page.locator("#stage .doing")
    expect(said).to_contain_text("Reading the clip", timeout=WITHIN_MS)
    expect(page.locator("#stage .headline")).to_be_empty()
    page.locator("#stage .stop-run").click()
    expect(said).to_contain_text("Stopped.", timeout=1_000)
    expect(page.locator("#stage .stop-run")).to_be_hidden()
    decoder.resume()
    page.get_by_role("button", name="Look again").click()
    answered(page)
    expect(page.locator("#stage .headline")).to_have_text(re.compile(r"action \d"))
    expect(page.locator("#stage .details")).to_contain_text("looped")


def test_who_waits_may_stop_and_each_visitor_gets_the_own_answer(
    browser: Browser, page: Page, small_server: Server, clip_folder: Path, request: pytest.FixtureRequest
) -> None:
    context = browser.new_context()
    other = context.new_page()
    open_page(page, small_server)
    open_page(other, small_server)
    choose(page, clip_folder / "a.mp4")
    answered(page)
    decoder: psutil.Process = request.getfixturevalue("decoder")
    decoder.suspend()
    choose(page, clip_folder / "a.mp4")  # 8 frames from 0.60 s on
    expect(page.locator("#stage .doing")).to_contain_text("Reading the clip", timeout=WITHIN_MS)
    for _ in range(2):
        choose(other, clip_folder / "z with space.mp4")  # 5 frames from 0.00 s on
        expect(other.locator("#stage .doing")).to_contain_text("One clip before yours", timeout=WITHIN_MS)
        other.locator("#stage .stop-run").click()
        expect(other.locator("#stage .doing")).to_contain_text("Stopped.")
    choose(other, clip_folder / "z with space.mp4")
    decoder.resume()
    for visitor in (page, other):
        answered(visitor)
    expect(page.locator("#stage .details")).to_contain_text("0.60-1.40 s")
    expect(other.locator("#stage .details")).to_contain_text("looped")
    context.close()


def test_a_folder_run_is_stopped(page: Page, small_server: Server, clip_folder: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"clip {number}.mp4" for number in range(40)]
    for file in files:
        file.write_bytes((clip_folder / "a.mp4").read_bytes())
    page.goto(small_server.url)
    page.get_by_role("tab", name="Folder").click()
    page.locator("#files input[type=file]").set_input_files(files)
    page.locator("#folder-said .stop-run").click(timeout=WITHIN_MS)
    expect(page.locator("#folder[data-state=stopped]")).to_be_visible(timeout=WITHIN_MS)
    said = page.locator("#folder-said .doing")
    expect(said).to_contain_text(re.compile(r"\d+ of 40 files: \d+ read\."))
    found = re.search(r"(\d+) of 40", said.inner_text())
    assert found is not None
    assert int(found[1]) < 40
    with page.expect_download() as download:
        page.locator("#folder-downloads a").first.click()
    assert len(download.value.path().read_text().splitlines()) == int(found[1]) + 1, "a row for each, and the header"
    expect(page.get_by_role("button", name="Look again")).to_be_visible()
