"""Recording with the camera: a real browser with a camera that shows a moving test picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from serving import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WITHIN_MS = 60_000


def test_a_recording_is_recognised_like_an_upload(page: Page, small_server: Server) -> None:
    earlier = set(small_server.temporary.rglob("*.webm"))  # uploads of other tests
    page.context.grant_permissions(["camera"])  # and no microphone
    page.goto(small_server.url)
    page.get_by_role("button", name="Or record with your camera").click()
    camera = page.locator("#camera")
    camera.get_by_text("Click to Access Webcam").click()
    camera.get_by_text("Record", exact=True).click(timeout=WITHIN_MS)
    page.wait_for_timeout(1500)
    camera.get_by_text("Stop", exact=True).click()

    expect(page.locator("#clip")).to_contain_text(".webm", timeout=WITHIN_MS)
    expect(camera.get_by_text("Click to Access Webcam")).to_be_visible(timeout=WITHIN_MS)
    page.wait_for_function("document.querySelector('#preview video').videoWidth > 0")
    page.locator("#recognise:enabled").click(timeout=WITHIN_MS)
    expect(page.locator("#status")).to_contain_text("8 frames, 48 px", timeout=WITHIN_MS)
    expect(page.locator("#status")).to_contain_text("pyav")
    expect(page.locator("#strip img").first).to_be_visible(timeout=WITHIN_MS)
    (recording,) = set(small_server.temporary.rglob("*.webm")) - earlier
    assert b"V_VP" in recording.read_bytes()[:4096], "VP8 or VP9"
    assert not list(small_server.temporary.rglob("*_flip*")) + list(small_server.temporary.rglob("muted_*"))


def test_a_clip_that_the_browser_plays_is_previewed(page: Page, small_server: Server, clip_folder: Path) -> None:
    page.goto(small_server.url)
    expect(page.locator("#preview")).to_be_hidden()
    page.locator("#clip input[type=file]").set_input_files(clip_folder / "a.mp4")
    expect(page.locator("#preview video")).to_be_visible(timeout=WITHIN_MS)
    page.wait_for_function("document.querySelector('#preview video').duration > 1.9")
    page.locator("#clip").get_by_label("Clear").click()
    expect(page.locator("#preview")).to_be_hidden()
