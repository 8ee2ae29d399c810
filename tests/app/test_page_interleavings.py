"""Uploads, stops, clicks and reloads in a real browser, in ten seeded orders: the answer is the last clip's."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from serving import Server
from visiting import WITHIN_MS, answered, open_page

from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.video.encode import write_video

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WATCH = """() => {
    window.mixed = [];
    const check = () => {
        const name = document.querySelector("#stage .clip-name")?.textContent;
        const said = document.querySelector("#stage .details")?.textContent ?? "";
        const headline = document.querySelector("#stage .headline")?.textContent;
        const frames = /, (\\d\\.\\d\\d-\\d\\.\\d\\d) s/.exec(said)?.[1];
        if (headline && frames) window.mixed.push([name, frames]);
    };
    const everything = { childList: true, subtree: true, characterData: true };
    new MutationObserver(check).observe(document.querySelector("#stage"), everything);
}"""
"""Notes each pair of a clip's name and the span that was looked at, whenever anything changes."""

LOSE = """() => {
    const fetched = window.fetch;
    const nothing = () => new Response('data: {"msg": "close_stream"}\\n\\n');
    window.fetch = (input, init) => {
        if (!String(input.url ?? input).includes("/queue/data")) return fetched(input, init);
        window.fetch = fetched;
        window.lost = true;
        return Promise.resolve(nothing());
    };
}"""
"""Loses the next stream of answers."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Clips of different lengths, so that the span in the middle tells them apart."""
    folder = tmp_path_factory.mktemp("several")
    chance = np.random.default_rng(3)
    paths = []
    for number in range(3):
        path = folder / f"clip {number}.mp4"
        tiles = chance.integers(0, 256, (12 + 6 * number, 4, 6, 3), dtype=np.uint8)
        write_video(path, (np.kron(tile, np.ones((16, 16, 1), np.uint8)) for tile in tiles), fps=10)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def spans(clips: list[Path], recognizer: Recognizer) -> dict[str, str]:
    def span(clip: Path) -> str:
        view = recognizer.classify(clip).views[0]
        return f"{view.start_seconds:.2f}-{view.end_seconds:.2f}"

    found = {clip.name: span(clip) for clip in clips}
    assert len(set(found.values())) == len(clips)
    return found


@pytest.mark.parametrize("seed", range(10))
def test_what_is_shown_belongs_to_the_clip_that_is_shown(
    page: Page, small_server: Server, clips: list[Path], spans: dict[str, str], seed: int
) -> None:
    chance = random.Random(seed)
    open_page(page, small_server)
    page.evaluate(WATCH)
    pairs: list[list[str]] = []
    chosen = clips[0]

    def upload() -> None:
        nonlocal chosen
        chosen = chance.choice(clips)
        page.locator("#clip-file").set_input_files(chosen)
        expect(page.locator("#stage .clip-name")).to_have_text(chosen.name)

    def stop() -> None:
        button = page.locator("#stage .stop-run")
        if button.is_visible():
            # What runs may answer between the look and the press.
            page.evaluate("document.querySelector('#stage .stop-run').click()")
            expect(button).to_be_hidden(timeout=2_000)

    def click() -> None:
        picture = page.locator(".picture")
        if picture.is_visible():
            picture.click(position={"x": 60, "y": 60}, force=True)

    def reload() -> None:
        pairs.extend(page.evaluate("window.mixed"))
        open_page(page, small_server)
        page.evaluate(WATCH)

    acts = [upload, upload, stop, click, reload, lambda: page.wait_for_timeout(chance.choice([30, 200, 600]))]
    upload()
    for _ in range(8):
        chance.choice(acts)()
    upload()
    answered(page)
    pairs.extend(page.evaluate("window.mixed"))
    assert [chosen.name, spans[chosen.name]] in pairs
    assert {(name, span) for name, span in pairs} <= set(spans.items())
    expect(page.locator(".toast-body")).to_have_count(0)
    expect(page.locator("#stage .stop-run")).to_be_hidden(timeout=WITHIN_MS)


def test_an_answer_that_is_lost_on_its_way_is_asked_for_again(
    page: Page, small_server: Server, clips: list[Path]
) -> None:
    open_page(page, small_server)
    page.evaluate(LOSE)
    page.locator("#clip-file").set_input_files(clips[0])
    answered(page)
    assert page.evaluate("window.lost")
    expect(page.locator("#stage .stop-run")).to_be_hidden()
    expect(page.locator(".toast-body")).to_have_count(0)
