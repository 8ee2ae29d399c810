"""Questions and folders as visitors meet them: a real browser, a small model."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from serving import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WITHIN_MS = 60_000


def recognised(page: Page, small_server: Server, clip: Path) -> None:
    """Recognise a clip and go to the questions."""
    page.goto(small_server.url)
    page.locator("#clip input[type=file]").set_input_files(clip)
    page.locator("#recognise:enabled").click(timeout=WITHIN_MS)
    page.locator("#to-ask").click(timeout=WITHIN_MS)
    expect(page.locator("#sheet img")).to_be_visible(timeout=WITHIN_MS)
    page.wait_for_function("document.querySelector('#sheet img').naturalWidth > 0")


def click_sheet(page: Page, x: float, y: float) -> tuple[str, str]:
    """Click a place of the sheet, in fractions; the picture and the numbers that come."""
    picture, numbers = page.locator("#sheet img"), page.locator("#numbers")
    before, words = picture.get_attribute("src"), numbers.inner_text()
    box = picture.bounding_box()
    assert box is not None
    picture.click(position={"x": box["width"] * x, "y": box["height"] * y})
    expect(numbers).not_to_have_text(words, use_inner_text=True, timeout=WITHIN_MS)
    expect(picture).not_to_have_attribute("src", before or "", timeout=WITHIN_MS)
    return picture.get_attribute("src") or "", numbers.inner_text()


def test_a_click_shows_the_attention_and_another_click_changes_it(
    page: Page, small_server: Server, clip_folder: Path
) -> None:
    page.goto(small_server.url)
    page.get_by_role("tab", name="Ask a point").click()
    expect(page.locator("#ask-invitation")).to_contain_text("Recognise a clip first")
    recognised(page, small_server, clip_folder / "a.mp4")
    expect(page.get_by_label("Attention received").last).to_be_checked()

    first, words = click_sheet(page, 0.12, 0.2)  # the first of 4 x 2 frames
    assert "Entropy" in words
    assert "Spread in time" in words
    expect(page.get_by_label("What a point attends to")).to_be_checked()
    second, others = click_sheet(page, 0.88, 0.7)
    assert second != first
    assert others.splitlines()[0] != words.splitlines()[0], "another point"
    alt = page.locator("#sheet img").get_attribute("alt") or ""
    assert "Asked point" in alt

    page.get_by_label("Evidence for an action").check()
    expect(page.locator("#numbers")).to_contain_text("share of the logit", timeout=WITHIN_MS)
    expect(page.locator("#ask-block")).to_be_hidden()


def test_a_picture_is_checked_and_the_next_one_is_not(page: Page, small_server: Server, clip_folder: Path) -> None:
    recognised(page, small_server, clip_folder / "a.mp4")
    expect(page.locator("#checked")).to_contain_text("6 looks")
    page.locator("#check").click()
    expect(page.locator("#checked")).to_contain_text("of the cells blurred", timeout=WITHIN_MS)
    page.get_by_label("Evidence for an action").check()
    expect(page.locator("#numbers")).to_contain_text("share of the logit", timeout=WITHIN_MS)
    expect(page.locator("#checked")).to_contain_text("6 looks", timeout=WITHIN_MS)


def test_a_point_can_be_asked_without_a_mouse(page: Page, small_server: Server, clip_folder: Path) -> None:
    recognised(page, small_server, clip_folder / "a.mp4")
    accordion = page.get_by_role("button", name="Ask by numbers")
    accordion.focus()
    page.keyboard.press("Enter")
    place = page.locator("#ask-x input[type=number]")
    place.focus()
    place.fill("40")
    page.locator("#ask-button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#numbers")).to_contain_text("40% from the left, 50% from the top", timeout=WITHIN_MS)


def test_a_place_that_the_network_did_not_see_is_said(page: Page, small_server: Server, clip_folder: Path) -> None:
    recognised(page, small_server, clip_folder / "a.mp4")
    page.locator("#sheet img").click(position={"x": 2, "y": 2})
    expect(page.locator(".toast-body")).to_contain_text("outside the square that the network sees", timeout=WITHIN_MS)
    page.locator(".toast-body").get_by_label("Close").click()
    click_sheet(page, 0.12, 0.2)


def test_two_visitors_do_not_mix(browser: Browser, page: Page, small_server: Server, clip_folder: Path) -> None:
    context = browser.new_context()
    other = context.new_page()
    recognised(page, small_server, clip_folder / "a.mp4")  # 8 frames from 0.60 s on
    recognised(other, small_server, clip_folder / "z with space.mp4")  # 5 frames from 0.00 s on
    _, of_other = click_sheet(other, 0.12, 0.2)
    _, of_page = click_sheet(page, 0.12, 0.2)
    assert of_other.startswith("The point at 0.00 s")
    assert of_page.startswith("The point at 0.60 s")
    page.get_by_role("tab", name="Recognise").click()
    page.locator("#clip").get_by_label("Clear").click()
    page.get_by_role("tab", name="Ask a point").click()
    expect(page.locator("#ask-invitation")).to_be_visible()
    expect(page.locator("#sheet")).to_be_hidden()
    _, again = click_sheet(other, 0.38, 0.2)
    assert again.startswith("The point at 0.10 s")
    context.close()


def test_several_files_and_a_folder(page: Page, small_server: Server, clip_folder: Path) -> None:
    page.goto(small_server.url)
    page.get_by_role("tab", name="Folder").click()
    files = [clip_folder / "a.mp4", clip_folder / "b" / "note.mp4"]
    page.locator("#files input[type=file]").set_input_files(files)
    expect(page.locator("#files")).to_contain_text("note", timeout=WITHIN_MS)
    page.locator("#folder-start").click()
    status, table = page.locator("#folder-status"), page.locator("#folder-table")
    expect(status).to_contain_text("Done. 2 of 2 files: 1 ok, 1 not_a_video", timeout=WITHIN_MS)
    expect(table).to_contain_text("it is not a video")
    with page.expect_download() as download:
        page.locator("#folder-downloads a").first.click()
    assert "a.mp4,ok,tiny" in download.value.path().read_text()

    page.locator("#files").get_by_label("Clear").first.click()
    page.get_by_label("Or a folder on the server").fill("b")
    page.locator("#folder-start").click()
    expect(table).to_contain_text("b/c.mp4", timeout=WITHIN_MS)
    expect(status).to_contain_text("Done. 2 of 2 files")
    page.get_by_label("Or a folder on the server").fill("..")
    page.locator("#folder-start").click()
    expect(page.locator(".toast-body")).to_contain_text("not below the one that the server offers", timeout=WITHIN_MS)
