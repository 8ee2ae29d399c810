"""Film a visit to the page: `python docs/make_film.py` writes `docs/images/visit.webp`.

A browser without a window does what a visitor does with a sample clip, and what it draws is kept with its time. Nothing
is staged but the pointer, which such a browser does not draw, and the waiting for the answer, which is cut to
`WAIT_SECONDS`.

Needs the test extra and a Chromium, and fetches the sample clips if they are not there.
"""

from __future__ import annotations

import base64
import io
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from make_screenshots import WITHIN_MS, serving
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from nonlocal_video.samples import fetch_samples

FILM = Path(__file__).parent / "images" / "visit.webp"
VIEWPORT = (1200, 850)
WIDTH = 840
"""Width of the film in pixels."""
FRAME_MS = 125
WAIT_SECONDS = 1.5
"""Part that is kept of the time between the choice of the clip and its answer."""
QUALITY = 62
POINTS = ((0.2, 0.36), (0.5, 0.3))
"""Points that are asked about, in fractions of the picture: a hand and the head."""
STEPS = 14
"""Pictures of the pointer on its way."""
POINTER = """() => {
    const pointer = document.createElement("div");
    const shape = "M3 2 L3 23 L8.5 18 L12 27 L16 25.4 L12.4 17 L20 17 Z";
    const drawn = 'fill="white" stroke="black" stroke-width="1.6" stroke-linejoin="round"';
    pointer.innerHTML = `<svg width="26" height="30" viewBox="0 0 26 30"><path d="${shape}" ${drawn}/></svg>`;
    pointer.style.cssText = "position:fixed;z-index:99999;left:-40px;top:0;pointer-events:none;margin:-2px 0 0 -3px";
    document.body.append(pointer);
    addEventListener("mousemove", ({ clientX, clientY }) => {
        window.pointerAt = [clientX, clientY];
        pointer.style.left = `${clientX}px`;
        pointer.style.top = `${clientY}px`;
    }, true);
}"""


@dataclass
class Camera:
    """Keeps what the browser draws, with the time of each picture in seconds; `cuts` are spans that are left out."""

    page: Page
    pictures: list[tuple[float, bytes]] = field(default_factory=list)
    cuts: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._session = self.page.context.new_cdp_session(self.page)
        self._session.on("Page.screencastFrame", self._keep)
        self._session.send("Page.startScreencast", {"format": "jpeg", "quality": 92, "everyNthFrame": 2})

    def stop(self) -> None:
        """Keep nothing more."""
        self._session.remove_listener("Page.screencastFrame", self._keep)
        self._session.send("Page.stopScreencast")
        self._session.detach()

    def _keep(self, event: dict[str, Any]) -> None:
        self.pictures.append((event["metadata"]["timestamp"], base64.b64decode(event["data"])))
        self._session.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})

    @property
    def now(self) -> float:
        """Time of the last picture."""
        return self.pictures[-1][0]

    def frames(self) -> list[Image.Image]:
        """Return the pictures of the film, one for every `FRAME_MS`."""
        times = [time - sum(max(0.0, min(time, end) - begin) for begin, end in self.cuts) for time, _ in self.pictures]
        frames, shown = [], 0
        for count in range(int((times[-1] - times[0]) * 1000 / FRAME_MS)):
            while shown + 1 < len(times) and times[shown + 1] - times[0] <= count * FRAME_MS / 1000:
                shown += 1
            picture = Image.open(io.BytesIO(self.pictures[shown][1])).convert("RGB")
            size = WIDTH, round(WIDTH * picture.height / picture.width)
            frames.append(picture.resize(size, Image.Resampling.LANCZOS))
        return frames


def main() -> None:
    """Drive the page, and write the film."""
    fetch_samples()
    with serving() as address, sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        size = {"width": VIEWPORT[0], "height": VIEWPORT[1]}
        for _ in range(3):
            warm_up(browser.new_page(viewport=size), address)
        page = browser.new_page(viewport=size)
        page.goto(address)
        page.wait_for_function("document.querySelectorAll('#intake .sample video').length === 6")
        page.wait_for_timeout(1500)
        page.evaluate(POINTER)
        page.mouse.move(500, 600)
        camera = Camera(page)
        page.wait_for_timeout(500)
        visit(page, camera)
        camera.stop()
        browser.close()
    frames = camera.frames()
    options = {"duration": FRAME_MS, "loop": 0, "quality": QUALITY, "method": 4}
    frames[0].save(FILM, save_all=True, append_images=frames[1:], **options)
    size_mb = FILM.stat().st_size / 1e6
    print(f"{FILM}: {len(frames) * FRAME_MS / 1000:.1f} s, {frames[0].width} x {frames[0].height}, {size_mb:.2f} MB")


def warm_up(page: Page, address: str) -> None:
    """Have an answer given, so that the network is compiled and the page knows how long one takes."""
    page.goto(address)
    page.locator("#intake .sample").first.click()
    expect(page.locator("#stage .player")).to_have_class("player ready", timeout=WITHIN_MS)
    page.close()


def visit(page: Page, camera: Camera) -> None:
    """Pick a sample, look at what its answer rests on and what the network watches, and ask about two points."""
    samples = page.locator("#intake .sample")
    point(page, samples.nth(3))
    page.wait_for_timeout(900)
    point(page, samples.first)
    page.wait_for_timeout(900)
    samples.first.click()
    chosen = camera.now
    expect(page.locator("#stage .player")).to_have_class("player ready", timeout=WITHIN_MS)
    if camera.now - chosen > WAIT_SECONDS:
        camera.cuts.append((chosen + WAIT_SECONDS, camera.now))
    page.wait_for_timeout(3500)
    click(page, page.locator(".mode-attention"))
    page.wait_for_timeout(3000)
    for place in POINTS:
        click(page, page.locator(".picture"), place)
        expect(page.locator("#stage .legend")).to_contain_text("This point attends", timeout=WITHIN_MS)
        page.wait_for_timeout(3000)


def point(page: Page, target: Any, at: tuple[float, float] = (0.5, 0.5)) -> tuple[float, float]:
    """Move the pointer to a place of an element, as a hand does."""
    box = target.bounding_box()
    assert box is not None
    x, y = box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"]
    where = page.evaluate("window.pointerAt ?? [500, 600]")
    for step in range(1, STEPS + 1):
        share = step / STEPS
        page.mouse.move(where[0] + share * (x - where[0]), where[1] + share * (y - where[1]))
        page.wait_for_timeout(30)
    return x, y


def click(page: Page, target: Any, at: tuple[float, float] = (0.5, 0.5)) -> None:
    """Point at an element and click it."""
    page.mouse.click(*point(page, target, at))


if __name__ == "__main__":
    main()
