"""Checks by axe-core of every tab of the page, in light and in dark, as wide as a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from serving import Server
from visiting import WITHIN_MS, answered, choose, open_page, open_tab, tab_names

from nonlocal_video.app import texts

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

UNQUEUED = "*, *::before, *::after { transition: none !important; animation: none !important; }"
"""A colour on its way to another may be too pale for a moment, whenever it sets out."""
Colours = Literal["light", "dark"]
RULES: dict[Colours, dict[str, Any]] = {"dark": {"runOnly": ["color-contrast", "link-in-text-block"]}, "light": {}}
"""All rules in light, and in dark those that read colours: the elements are the same."""


def serious_findings(page: Page, colours: Colours) -> list[tuple[str, str, str]]:
    """List the findings that axe-core calls serious or critical: rule, element, and what to do."""
    page.emulate_media(color_scheme=colours)
    page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=colours == "dark")
    violations = Axe().run(page, options={"resultTypes": ["violations"], **RULES[colours]}).response["violations"]
    return [
        (found["id"], node["html"], node["failureSummary"])
        for found in violations
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]


def check(page: Page, state: str) -> None:
    for colours in RULES:
        assert not serious_findings(page, colours), f"{state}, in {colours}"


def test_no_serious_finding(page: Page, small_server: Server, clip_folder: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 900})
    open_page(page, small_server)
    page.add_style_tag(content=UNQUEUED)
    tabs = tab_names(page)
    assert [tab for tab in tabs if tab in texts.TABS.values()] == list(texts.TABS.values())
    for tab in tabs:
        open_tab(page, tab)
        check(page, f"{tab}, before anything is asked")

    open_tab(page, "Folder")
    page.locator("#files input[type=file]").set_input_files([clip_folder / "a.mp4", clip_folder / "b" / "note.mp4"])
    expect(page.locator("#folder[data-state=done]")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#folder-table")).to_contain_text("it is not a video")
    page.locator("#folder-table input.label").press("Enter")
    expect(page.locator("#folder-table .teach-these")).to_be_visible(timeout=WITHIN_MS)
    check(page, "Folder, after a run")

    open_tab(page, "Timeline")
    page.locator("#timeline-clip input[type=file]").set_input_files(clip_folder / "a.mp4")
    expect(page.locator("#timeline[data-state=done]")).to_be_visible(timeout=WITHIN_MS)
    page.locator("#timeline-settings > button").click()
    check(page, "Timeline, after a run")
    page.locator("#timeline-settings > button").click()

    open_tab(page, "Search")
    page.locator("#search-clips input[type=file]").set_input_files([clip_folder / "a.mp4", clip_folder / "b" / "c.mp4"])
    expect(page.locator("#search-example")).to_be_visible(timeout=WITHIN_MS)
    page.locator("#search-upload input[type=file]").set_input_files(clip_folder / "z with space.mp4")
    page.locator("#search-whole").click(timeout=WITHIN_MS)
    expect(page.locator("#search-results .moment").first).to_be_visible(timeout=WITHIN_MS)
    check(page, "Search, with moments")

    open_tab(page, "Recognise")
    choose(page, clip_folder / "a.mp4")
    answered(page)
    check(page, "Recognise, with an answer")
    for fold in ("#stage .details summary", "#stage .made summary", "#settings > button"):
        page.locator(fold).click()
    check(page, "Recognise, with everything unfolded")
    page.locator("#settings > button").click()
    page.locator(".picture").press("Enter")
    expect(page.locator("#stage .legend")).to_contain_text("This point attends", timeout=WITHIN_MS)
    page.locator("#stage .numbers summary").click()
    expect(page.locator(".moments .chip").first).to_be_visible(timeout=WITHIN_MS)
    check(page, "Recognise, with a question and moments")
