"""What a visitor finds where: the way to an answer on a phone, and the program on the API tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from serving import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WITHIN_MS = 60_000
PHONE = {"width": 390, "height": 844}


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


def test_on_a_phone_all_tabs_are_seen_and_the_answer_comes_into_view(
    page: Page, small_server: Server, clip_folder: Path
) -> None:
    page.set_viewport_size(PHONE)
    page.goto(small_server.url)
    for tab in ("Recognise", "Ask a point", "Timeline", "Folder", "API"):
        expect(page.get_by_role("tab", name=tab)).to_be_in_viewport(ratio=1)
    page.locator("#clip input[type=file]").set_input_files(clip_folder / "a.mp4")
    expect(page.locator("#status")).not_to_be_in_viewport()
    page.locator("#recognise:enabled").click(timeout=WITHIN_MS)
    expect(page.locator("#status")).to_be_in_viewport()
    expect(page.locator("#scores h2")).to_be_in_viewport(timeout=WITHIN_MS)


def test_on_a_desk_the_button_is_seen_with_the_clip_chosen(page: Page, small_server: Server, clip_folder: Path) -> None:
    page.goto(small_server.url)
    page.locator("#clip input[type=file]").set_input_files(clip_folder / "a.mp4")
    expect(page.locator("#preview video")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#recognise:enabled")).to_be_in_viewport(ratio=1)
    page.locator("#recognise").click()
    expect(page.locator("#scores h2")).to_be_visible(timeout=WITHIN_MS)
    assert page.evaluate("scrollY") == 0, "what is seen already is not scrolled to"
