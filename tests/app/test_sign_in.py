"""The sign-in in a real browser: what is wrong is said, and a link to a result leads to the result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from serving import Server, serving

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WITHIN_MS = 60_000


@pytest.fixture(scope="module")
def closed_server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("closed"), "--model", str(tiny_model), "--auth", "ann:secret") as server:
        yield server


def test_a_wrong_password_is_said_and_the_right_one_leads_to_what_was_asked_for(
    page: Page, closed_server: Server
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{closed_server.url}/r/a-result-that-is-gone")
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
