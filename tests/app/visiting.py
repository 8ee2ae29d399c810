"""Actions of the page's tests in a browser."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from serving import Server

WITHIN_MS = 60_000
DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
ANSWERED = (
    "document.querySelector('#stage .headline')?.textContent"
    " && document.querySelector('#stage .player')?.className === 'player ready'"
)


def open_page(page: Page, server: Server) -> None:
    """Open the page and wait until it takes a clip."""
    page.goto(server.url)
    look_often(page, "document.querySelector('#intake .choose')?.checkVisibility()")
    expect(page.locator("#intake .choose")).to_be_visible()


def choose(page: Page, clip: Path) -> None:
    """Give the page a clip; nothing is pressed."""
    page.locator("input[type=file]").first.set_input_files(clip)
    expect(page.locator("#stage .clip-name")).to_have_text(clip.name)


def answered(page: Page, *, within_ms: int = WITHIN_MS) -> None:
    """Wait for the answer and for the player with its maps."""
    look_often(page, ANSWERED, within_ms=within_ms)
    expect(page.locator("#stage .headline")).not_to_be_empty()
    expect(page.locator("#stage .player")).to_have_class("player ready")


def look_often(page: Page, condition: str, *, within_ms: int = WITHIN_MS) -> None:
    """Wait for what takes its time: `expect`, which says what is there instead, soon looks only twice a second."""
    with suppress(PlaywrightTimeout):
        page.wait_for_function(condition, timeout=within_ms)


def set_view(page: Page, words: str) -> None:
    """Choose how closely to look, behind the gear."""
    gear = page.locator("#settings > button")
    gear.click()
    page.get_by_label(words).check()
    gear.click()


def open_tab(page: Page, name: str) -> None:
    """Open a tab; one that has no room in the row stands in the menu beside it."""
    if name not in page.get_by_role("tab").all_inner_texts():
        page.get_by_role("button", name="More tabs").click()
        page.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True).click()
    else:
        page.get_by_role("tab", name=name, exact=True).click()


def tab_names(page: Page) -> list[str]:
    """Names of the tabs, those in the menu last."""
    return [*page.get_by_role("tab").all_inner_texts(), *page.locator(".overflow-dropdown button").all_text_contents()]
