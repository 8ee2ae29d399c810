"""Looking at a part of the picture, on the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from serving import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WITHIN_MS = 60_000


def test_a_part_of_the_picture_is_recognised_alone(page: Page, small_server: Server, clip_folder: Path) -> None:
    page.goto(small_server.url)
    page.locator("#clip input[type=file]").set_input_files(clip_folder / "a.mp4")
    expect(page.locator("#recognise")).to_be_enabled(timeout=WITHIN_MS)
    part = page.get_by_label("Only this part of the picture")
    part.fill("0.5,0,0.2,1")
    page.locator("#recognise").click()
    message = page.locator(".toast-body")
    expect(message).to_contain_text("0 <= X0 < X1 <= 1", timeout=WITHIN_MS)
    message.get_by_label("Close").click()
    part.fill("0.25,0,1,0.75")
    page.locator("#recognise").click()
    expect(page.locator("#status")).to_contain_text("of region 0.25,0,1,0.75", timeout=WITHIN_MS)
    expect(page.locator("#status")).to_contain_text("25% to 100% of its width")
    expect(page.locator("#strip img").first).to_be_visible(timeout=WITHIN_MS)
