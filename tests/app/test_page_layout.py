"""Places on the page: an answer without a press, within the first screens of a desk and of a phone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from serving import Server
from visiting import DESK, PHONE, answered, choose, open_page, open_tab, tab_names

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

TABS = ("Recognise", "Timeline", "Search", "Teach", "Live", "Folder", "Models", "API")
WORDS_OF_THE_LABORATORY = re.compile(r"view\(s\)|\bnats\b|whitened|\blogit|decord|pyav|1x1", re.IGNORECASE)


def test_the_program_on_the_api_tab_runs(page: Page, small_server: Server, clip_folder: Path, tmp_path: Path) -> None:
    page.goto(small_server.url)
    page.get_by_role("tab", name="API").click()
    code = page.locator("#api pre code")
    expect(code).to_contain_text(small_server.url)
    shutil.copy(clip_folder / "a.mp4", tmp_path / "clip.mp4")
    own = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path), "GRADIO_ANALYTICS_ENABLED": "False"}
    ran = subprocess.run(
        [sys.executable, "-c", code.inner_text()], cwd=tmp_path, env=own, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    for answer in ("'label': 'action", "overlay.mp4", "'start_seconds': 0.0"):
        assert answer in ran.stdout


@pytest.mark.parametrize(("size", "screens"), [(DESK, 1), (PHONE, 2)], ids=["desk", "phone"])
def test_the_answer_comes_without_a_press_and_is_in_sight(
    page: Page, small_server: Server, clip_folder: Path, size: dict[str, int], screens: int
) -> None:
    page.set_viewport_size(size)
    open_page(page, small_server)
    for tab in page.get_by_role("tab").all():
        expect(tab).to_be_in_viewport(ratio=1)
    assert tab_names(page) == list(TABS)
    if size is PHONE:
        open_tab(page, TABS[-1])
        expect(page.locator("#api pre code")).to_be_visible()
        open_tab(page, TABS[0])
    assert page.locator("input[type=file]").first.get_attribute("id") == "clip-file"
    choose(page, clip_folder / "a.mp4")
    answered(page)
    assert page.evaluate("scrollY") == 0, "nothing scrolls by itself"
    expect(page.locator("#stage .headline")).to_be_in_viewport(ratio=1)
    for part in (".picture", ".strip", ".controls", ".legend", ".bars"):
        box = page.locator(f"#stage {part}").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= screens * size["height"], part
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], "nothing scrolls sideways"
    headline, picture = page.locator("#stage .headline").bounding_box(), page.locator(".picture").bounding_box()
    assert headline is not None
    assert picture is not None
    assert (headline["y"] < picture["y"]) == (size is PHONE), "on a phone the answer is first"


def test_an_answer_has_plain_words_and_no_width_scrolls_sideways(
    page: Page, small_server: Server, clip_folder: Path
) -> None:
    page.set_viewport_size({"width": 1920, "height": 900})
    open_page(page, small_server)
    choose(page, clip_folder / "a.mp4")
    answered(page)
    seen = page.locator("#flow").inner_text()
    assert not WORDS_OF_THE_LABORATORY.search(seen), seen
    page.locator("#settings > button").click()
    for width in (1920, 1024, 768, 360):  # what has had more room has to give it back
        page.set_viewport_size({"width": width, "height": 900})
        expect(page.get_by_label("Only this part of the picture")).to_be_in_viewport(ratio=1)
        page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
    page.locator("#settings > button").click()
    page.locator("#stage .details summary").click()
    expect(page.locator("#stage .details")).to_contain_text("8 frames, 48 px")


def test_a_long_name_is_neither_cut_nor_too_wide(page: Page, small_server: Server) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    open_page(page, small_server)
    never_sent = """name => document.dispatchEvent(new CustomEvent("clip-chosen", {
        detail: { name, url: "", sent: new Promise(() => {}) } }))"""
    page.evaluate(never_sent, "recording_of_something_" + "x" * 60 + ".mp4")
    expect(page.locator("#stage .doing")).to_have_text("Sending the clip")
    page.locator("#stage .doing").evaluate("(said, name) => { said.textContent = name }", "x" * 80)
    for part in (".doing", ".said", ".player"):
        assert page.locator(f"#stage {part}").evaluate("part => part.scrollWidth <= part.clientWidth"), part


def test_what_is_behind_the_gear_closes_as_menus_do(page: Page, small_server: Server) -> None:
    open_page(page, small_server)
    gear, field = page.locator("#settings > button"), page.get_by_label("Only this part of the picture")
    gear.click()
    field.fill("0,0,1,1")
    expect(field).to_be_visible()
    page.keyboard.press("Escape")
    expect(field).to_be_hidden()
    expect(gear).to_be_focused()
    gear.click()
    expect(field).to_be_visible()
    page.locator("#title").click()
    expect(field).to_be_hidden()


@pytest.mark.parametrize("size", [DESK, {"width": 360, "height": 800}], ids=["desk", "phone"])
def test_every_tab_begins_with_what_to_do_and_fits(page: Page, small_server: Server, size: dict[str, int]) -> None:
    page.set_viewport_size(size)
    open_page(page, small_server)
    for tab, zone in (("Timeline", "#timeline-clip"), ("Search", "#search-clips"), ("Folder", "#files")):
        open_tab(page, tab)
        for part in (".big", ".small", ".choose"):
            expect(page.locator(f"{zone} {part}")).to_be_in_viewport(ratio=1)
        expect(page.get_by_role("button", name="Stop")).to_have_count(0)
        page.locator(".tab-settings > button:visible").click()
        expect(page.get_by_text("Up to 500 MB").locator("visible=true")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], tab
        page.locator(".tab-settings > button:visible").click()
