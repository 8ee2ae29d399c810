"""The sign-in in a real browser: what is wrong is said, and a link to a result leads to the result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from serving import serving_here

from nonlocal_video.app.application import create_app
from nonlocal_video.inference.recognizer import Recognizer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WITHIN_MS = 60_000


@pytest.fixture
def closed_page(recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a page that asks for a password."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with serving_here(create_app([recognizer], auth=("ann", "secret"))) as url:
        yield url


def test_a_wrong_password_is_said_and_the_right_one_leads_to_what_was_asked_for(page: Page, closed_page: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{closed_page}/r/a-result-that-is-gone")
    assert [re.sub(r"^.*?://[^/]*", "", url) for url in asked] == [
        "/r/a-result-that-is-gone",
        "/?result=a-result-that-is-gone",
    ], "and no other file"
    serious = [one for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
    assert not serious
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("This name or this password is wrong.", timeout=WITHIN_MS)
    assert page.get_by_label("Name").input_value() == "ann"
    page.get_by_label("Password").fill("secret")
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Recognise")).to_be_visible(timeout=WITHIN_MS)
    assert "a-result-that-is-gone" in page.url
    page.goto("about:blank")  # an open page holds a connection, for which the server would wait
