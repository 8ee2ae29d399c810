"""Checks by axe-core of every tab of the page, in light and in dark, as wide as a phone."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from serving import Server
from visiting import answered, choose, open_tab, tab_names

from nonlocal_video.app import texts

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WITHIN_MS = 60_000
UNQUEUED = "*, *::before, *::after { transition: none !important; animation: none !important; }"
"""A colour on its way to another may be too pale for a moment, whenever it sets out."""


def serious_findings(page: Page) -> list[tuple[str, str, str]]:
    """List the findings that axe-core calls serious or critical: rule, element, and what to do."""
    violations = Axe().run(page).response["violations"]
    return [
        (found["id"], node["html"], node["failureSummary"])
        for found in violations
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_no_serious_finding(
    browser: Browser, small_server: Server, clip_folder: Path, colours: Literal["light", "dark"]
) -> None:
    with closing(browser.new_context(viewport={"width": 390, "height": 900}, color_scheme=colours)) as context:
        look_everywhere(context.new_page(), small_server, clip_folder)


def look_everywhere(page: Page, server: Server, clip_folder: Path) -> None:
    page.goto(server.url)
    page.add_style_tag(content=UNQUEUED)
    expect(page.locator("#intake .choose")).to_be_visible(timeout=WITHIN_MS)
    tabs = tab_names(page)
    assert [tab for tab in tabs if tab in texts.TABS.values()] == list(texts.TABS.values())
    for tab in tabs:
        open_tab(page, tab)
        assert not serious_findings(page), f"{tab}, before anything is asked"

    open_tab(page, "Folder")
    page.locator("#files input[type=file]").set_input_files([clip_folder / "a.mp4", clip_folder / "b" / "note.mp4"])
    expect(page.locator("#folder[data-state=done]")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#folder-table")).to_contain_text("it is not a video")
    page.locator("#folder-table input.label").press("Enter")
    expect(page.locator("#folder-table .teach-these")).to_be_visible(timeout=WITHIN_MS)
    assert not serious_findings(page), "Folder, after a run"

    open_tab(page, "Timeline")
    page.locator("#timeline-clip input[type=file]").set_input_files(clip_folder / "a.mp4")
    expect(page.locator("#timeline[data-state=done]")).to_be_visible(timeout=WITHIN_MS)
    page.locator("#timeline-settings > button").click()
    assert not serious_findings(page), "Timeline, after a run"
    page.locator("#timeline-settings > button").click()

    open_tab(page, "Search")
    page.locator("#search-clips input[type=file]").set_input_files([clip_folder / "a.mp4", clip_folder / "b" / "c.mp4"])
    expect(page.locator("#search-example")).to_be_visible(timeout=WITHIN_MS)
    page.locator("#search-upload input[type=file]").set_input_files(clip_folder / "z with space.mp4")
    page.locator("#search-whole").click(timeout=WITHIN_MS)
    expect(page.locator("#search-results .moment").first).to_be_visible(timeout=WITHIN_MS)
    assert not serious_findings(page), "Search, with moments"

    open_tab(page, "Recognise")
    choose(page, clip_folder / "a.mp4")
    answered(page)
    assert not serious_findings(page), "Recognise, with an answer"
    for fold in ("#stage .details summary", "#stage .made summary", "#settings > button"):
        page.locator(fold).click()
    assert not serious_findings(page), "Recognise, with everything unfolded"
    page.locator("#settings > button").click()
    page.locator(".picture").press("Enter")
    expect(page.locator("#stage .legend")).to_contain_text("This point attends", timeout=WITHIN_MS)
    page.locator("#stage .numbers summary").click()
    expect(page.locator(".moments .chip").first).to_be_visible(timeout=WITHIN_MS)
    assert not serious_findings(page), "Recognise, with a question and moments"
