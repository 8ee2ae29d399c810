"""Use of an answer in a browser: its address, a reload, Back, its own page, and the table of a folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from serving import Server
from visiting import WITHIN_MS, answered, choose, open_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_reload_and_back_keep_the_result(page: Page, small_server: Server, clip_folder: Path) -> None:
    open_page(page, small_server)
    choose(page, clip_folder / "a.mp4")
    answered(page)
    first = page.url
    assert re.search(r"/\?result=[\w-]{22}$", first)
    link = page.get_by_role("link", name="Link to this result").get_attribute("href")
    choose(page, clip_folder / "b" / "c.mp4")
    page.wait_for_url(lambda url: url != first)
    answered(page)
    page.go_back()
    expect(page.locator("#stage .clip-name")).to_have_text("a.mp4", timeout=WITHIN_MS)
    answered(page)
    headline = page.locator("#stage .headline").text_content()
    page.reload()
    answered(page)
    expect(page.locator("#stage .headline")).to_have_text(headline)
    expect(page.locator("#recent-results li")).to_have_count(1)
    with page.expect_download() as download:
        page.locator("#keep-bar summary").click()
        page.get_by_role("link", name="JSON").click()
    assert download.value.failure() is None

    page.get_by_role("tab", name="Folder").click()
    page.reload()
    expect(page.locator("#files .choose")).to_be_visible(timeout=WITHIN_MS)

    page.goto(f"{small_server.url}{link}")
    expect(page.locator(".player")).to_have_class("player ready", timeout=WITHIN_MS)
    page.get_by_role("button", name="Keep").click()
    expect(page.locator("#life")).to_contain_text("Kept until")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Really delete?").click()
    expect(page.locator("h1")).to_contain_text("This result has expired. Drop the clip again.")


def test_labels_of_a_folder_are_put_right_by_keyboard(page: Page, small_server: Server) -> None:
    page.goto(f"{small_server.url}/#folder")
    page.get_by_label("Or a folder on the server").fill(".")
    page.get_by_role("button", name="Look at it").click()
    rows = page.locator("#folder-table .row")
    expect(page.locator("#folder[data-state=done]")).to_be_visible(timeout=WITHIN_MS)
    expect(rows).to_have_count(4)
    page.locator("#folder-table select").select_option("check")
    expect(rows).to_have_count(3)
    scores = page.locator("#folder-table .percent").all_text_contents()
    assert scores == sorted(scores, key=lambda score: float(score.strip("<>%")))
    fields = page.locator("#folder-table input.label")
    fields.first.focus()
    page.keyboard.press("Enter")
    expect(fields.nth(1)).to_be_focused()
    page.keyboard.type("waving")
    page.keyboard.press("Enter")
    expect(page.locator("#folder-table .after")).to_contain_text("2 labels put right or accepted.")
    expect(page.locator("#folder-table .row .state").nth(1)).to_contain_text("was ")
    with page.expect_download() as download:
        page.get_by_role("link", name="corrections.csv").click()
    assert "waving" in Path(download.value.path()).read_text()
    with page.context.expect_page() as opened:  # a visitor who leaves the table takes its results along
        page.locator("#folder-table a.open").first.click()
    expect(opened.value.locator(".player")).to_have_class("player ready", timeout=WITHIN_MS)
    page.locator("#folder-table .teach-these").click()
    expect(page.get_by_role("tab", name="Teach")).to_have_attribute("aria-selected", "true", timeout=WITHIN_MS)
    expect(page).to_have_url(re.compile("#teach$"))
    expect(page.locator(".teach-clips .teach-clip")).to_have_count(2)
    names = page.get_by_label("Name of this action").evaluate_all("fields => fields.map(field => field.value)")
    assert names[1] == "waving"
    expect(page.locator(".teach-says")).to_contain_text("2 actions, one clip each", timeout=WITHIN_MS)


def test_more_like_the_moment_that_the_player_shows(page: Page, small_server: Server, clip_folder: Path) -> None:
    """Search opens with this clip, at this time, and with what it found."""
    open_page(page, small_server)
    choose(page, clip_folder / "a.mp4")
    answered(page)
    similar = page.get_by_role("button", name="Find more like this moment")
    page.locator("#stage .play").click()  # it stands still
    seconds = float(page.locator("#stage .clock").inner_text().removesuffix(" s"))
    similar.click()
    expect(page.get_by_role("tab", name="Search")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#search-said")).to_contain_text("like a.mp4, at", timeout=WITHIN_MS)
    expect(page.locator("#search-results .moment")).not_to_have_count(0)
    page.wait_for_function("document.querySelector('#search-player video').currentTime > 0")
    assert page.evaluate("document.querySelector('#search-player video').currentTime") == pytest.approx(
        seconds, abs=0.1
    )
    page.go_back()
    expect(page.locator("#stage .headline")).to_be_visible()
    page.reload()
    expect(page.locator("#stage .headline")).not_to_be_empty(timeout=WITHIN_MS)
    expect(page.locator("#keep-bar .save")).to_be_visible(timeout=WITHIN_MS)
    expect(similar).to_be_hidden()  # a kept result has no clip
