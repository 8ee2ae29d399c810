"""The player in a real browser, with a small model: maps, points, parts of the picture, moments, the camera."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from serving import Server, files_of
from visiting import WITHIN_MS, answered, choose, open_page

from nonlocal_video.video.encode import write_video

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of three scenes."""
    path = tmp_path_factory.mktemp("long") / "scenes.mp4"
    tiles = np.random.default_rng(1).integers(0, 256, (3, 6, 8, 3), dtype=np.uint8)
    frames = (np.kron(tiles[number // 20], np.ones((16, 16, 1), np.uint8)) for number in range(60))
    write_video(path, frames, fps=10)
    return path


def point_at(page: Page, x: float, y: float) -> None:
    box = page.locator(".picture").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_a_point_is_asked_about_in_place_and_by_keys(page: Page, small_server: Server, clip_folder: Path) -> None:
    open_page(page, small_server)
    choose(page, clip_folder / "a.mp4")
    answered(page)
    legend = page.locator("#stage .legend")
    point_at(page, 0.5, 0.5)
    expect(legend).to_contain_text("This point attends", timeout=WITHIN_MS)
    ring = page.locator(".marks .ring:not(.dark)")
    assert ring.get_attribute("cx") == "50%"
    expect(page.locator("#stage .numbers")).to_be_visible()
    page.locator(".picture").press("ArrowRight")
    expect(ring).to_have_attribute("cx", "55%")
    page.locator(".picture").press("Escape")
    expect(ring).to_have_count(0)
    expect(legend).to_contain_text("Bright places speak for")
    point_at(page, 0.02, 0.5)
    expect(legend).to_contain_text("did not see that place", timeout=WITHIN_MS)


def test_a_bar_asks_why_that_one_and_a_switch_shows_what_it_watches(
    page: Page, small_server: Server, clip_folder: Path
) -> None:
    open_page(page, small_server)
    choose(page, clip_folder / "a.mp4")
    answered(page)
    second = page.locator("#stage .answer-bar").nth(1)
    name = second.locator(".label").inner_text()
    second.click()
    expect(page.locator("#stage .legend")).to_have_text(f"Bright places speak for “{name}”.", timeout=WITHIN_MS)
    expect(second).to_have_attribute("aria-pressed", "true")
    page.locator("#stage .player").get_by_text("What it watches").click()
    expect(page.locator("#stage .legend")).to_contain_text("the rest of the clip attends to most")
    page.locator(".switch").get_by_text("Clip").click()
    expect(page.locator("#stage .strength")).to_be_disabled()
    page.get_by_text("0.25×").click()
    assert page.evaluate("document.querySelector('.player .span').playbackRate") == 0.25
    page.locator("#stage .player").get_by_text("Why this answer").click()
    page.locator("#stage .made summary").click()
    page.get_by_role("button", name="Check this picture").click()
    expect(page.locator("#stage .checked")).to_contain_text("of the cells blurred", timeout=WITHIN_MS)


def test_a_dragged_rectangle_is_looked_at_alone(page: Page, small_server: Server, clip_folder: Path) -> None:
    open_page(page, small_server)
    choose(page, clip_folder / "a.mp4")
    answered(page)
    box = page.locator(".picture").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"], steps=5)
    page.mouse.up()
    expect(page.locator("#stage .part")).to_be_visible(timeout=WITHIN_MS)
    answered(page)
    page.locator("#stage .details summary").click()
    found = re.search(r"of region ([\d.,]+),", page.locator("#stage .details").inner_text())
    assert found is not None
    assert [float(edge) for edge in found[1].split(",")] == pytest.approx([0.25, 0.25, 0.75, 0.75], abs=0.02)
    page.get_by_role("button", name="Look at the whole picture").click()
    answered(page)
    expect(page.locator("#stage .part")).to_be_hidden()


def test_a_new_look_shows_nothing_of_the_answer_before_it(page: Page, small_server: Server, clip_folder: Path) -> None:
    open_page(page, small_server)
    choose(page, clip_folder / "a.mp4")
    answered(page)
    expect(page.locator("#stage .legend")).to_contain_text("Bright places speak for")
    at_once = page.evaluate(
        """() => {
            document.dispatchEvent(new CustomEvent("settings-changed"));
            const find = (selector) => document.querySelector(`#stage ${selector}`);
            const heat = find(".heat").getContext("2d").getImageData(0, 0, find(".heat").width, find(".heat").height);
            return [find(".legend").textContent, find(".line").getAttribute("points"), heat.data.some(Boolean)];
        }"""
    )
    assert at_once == ["What the answer rests on appears here.", "", False]
    answered(page)
    expect(page.locator("#stage .legend")).to_contain_text("Bright places speak for")


def test_a_long_clip_has_its_moments_in_the_same_flow(page: Page, small_server: Server, long_clip: Path) -> None:
    open_page(page, small_server)
    choose(page, long_clip)
    answered(page)
    chips = page.locator(".moments .chip")
    expect(chips.first).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator(".moments .stop-moments")).to_be_hidden(timeout=WITHIN_MS)
    page.locator(".moments .lane.refined").click(position={"x": 10, "y": 8}, force=True)
    expect(page.locator(".moments .drew")).to_contain_text(re.compile(r"It drew on|stands alone"), timeout=WITHIN_MS)
    chips.last.click()
    page.wait_for_function("!document.querySelector('.player .whole').hidden")
    page.wait_for_function(
        """() => {
            const film = document.querySelector(".player .of-whole");
            return film.getContext("2d").getImageData(film.width - 60, 10, 1, 1).data[3] === 255;
        }"""
    )  # pictures up to the clip's end
    cues = page.evaluate("document.querySelector('.player .whole').textTracks[0].cues.length")
    assert cues == chips.count()
    page.get_by_role("button", name="Ask why here").click()
    answered(page)
    expect(chips.first).to_be_visible(timeout=WITHIN_MS)


def test_a_recording_is_recognised_like_an_upload(page: Page, small_server: Server) -> None:
    earlier = files_of(small_server, ".webm")
    page.context.grant_permissions(["camera"])  # and no microphone
    open_page(page, small_server)
    record = page.get_by_role("button", name="Record")
    looks = record.evaluate("button => getComputedStyle(button).display")
    record.click()
    stop = page.locator("#intake .record")
    expect(stop).to_have_text("Stop", timeout=WITHIN_MS)
    assert stop.evaluate("button => getComputedStyle(button).display") == looks, "no looks of another tab's"
    expect(page.locator("#intake .camera-says")).to_contain_text("Recording, 1 s", timeout=WITHIN_MS)
    page.get_by_role("button", name="Stop").first.click()
    answered(page)
    expect(page.locator("#stage .clip-name")).to_have_text("recording.webm")
    (recording,) = files_of(small_server, ".webm") - earlier
    assert b"V_VP" in recording.read_bytes()[:4096], "VP8 or VP9"


def test_a_clip_is_dropped_and_pasted(page: Page, small_server: Server, clip_folder: Path) -> None:
    open_page(page, small_server)
    for kind, where, clip in (("drop", "dataTransfer", "a.mp4"), ("paste", "clipboardData", "z with space.mp4")):
        page.evaluate(
            """([kind, where, name, base64]) => {
                const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], name, { type: "video/mp4" }));
                const Kind = kind === "drop" ? DragEvent : ClipboardEvent;
                document.body.dispatchEvent(new Kind(kind, { [where]: transfer, bubbles: true, cancelable: true }));
            }""",
            [kind, where, clip, _base64(clip_folder / clip)],
        )
        expect(page.locator("#stage .clip-name")).to_have_text(clip)
        answered(page)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
