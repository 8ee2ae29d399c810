"""Make the pictures of the page, and time the clicks: `python docs/make_screenshots.py`.

Needs the test extra and a Chromium, and fetches the sample clips if they are not there.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from nonlocal_video.samples import Sample, fetch_samples
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video

IMAGES = Path(__file__).parent / "images"
WITHIN_MS = 300_000
POINTS = ((0.5, 0.5), (0.3, 0.36))
"""Clicked one after another, in fractions of the picture; the last one stays in the pictures: a hand."""

SIZE, RATE = (340, 256), 25
"""Shape of the video for the timeline: width and height in pixels, frames a second."""


def main() -> None:
    samples = fetch_samples()
    dancer, pianist = (sample.path for sample in samples[:2])
    with tempfile.TemporaryDirectory() as folder, serving() as address, sync_playwright() as playwright:
        note = Path(folder) / "holiday.mp4"
        note.write_text("This is not a video.\n" * 20)
        both = one_behind_the_other(samples[:2], Path(folder) / "two scenes.mp4")
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        shown = "[...document.querySelectorAll('#intake .sample video')].every((one) => one.readyState >= 2)"
        page.wait_for_function(shown, timeout=WITHIN_MS)
        save(page, "page_empty.jpg")
        recognise(page, both)
        save(page, "page_recognise.jpg")
        recognise(page, dancer)
        ask(page)
        save(page, "page_ask.jpg")
        folder_run(page, [dancer, pianist, note])
        save(page, "page_folder.jpg")
        teach_from_folder(page)
        save(page, "page_teach.jpg")
        search(page, [sample.path for sample in samples[:3]])
        save(page, "page_search.jpg")
        timeline(page, both)
        save(page, "page_timeline.jpg")
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        phone.goto(address)
        recognise(phone, dancer)
        ask(phone)
        save(phone, "page_phone.jpg")
        timeline(phone, both)
        save(phone, "page_timeline_phone.jpg")
        browser.close()


def recognise(page: Page, clip: Path) -> None:
    """Give the page a clip, and wait for the answer, its maps, and the moments of a long clip."""
    started = time.perf_counter()
    page.locator("#clip-file").set_input_files(clip)
    expect(page.locator("#stage .headline")).not_to_be_empty(timeout=WITHIN_MS)
    print(f"scores after {time.perf_counter() - started:.2f} s", flush=True)
    page.wait_for_function("document.querySelector('.player.ready .span')?.currentTime > 0", timeout=WITHIN_MS)
    page.wait_for_timeout(2000)  # the film strip
    moments = page.locator(".moments")
    if moments.is_visible():
        expect(moments.locator(".stop-moments")).to_be_hidden(timeout=WITHIN_MS)
        moments.locator(".lane.refined").click(position={"x": 60, "y": 10}, force=True)
        expect(moments.locator(".look-here")).to_be_visible(timeout=WITHIN_MS)


def ask(page: Page) -> None:
    """Ask about some points of the picture; the last one stays."""
    legend = page.locator("#stage .legend")
    for x, y in POINTS:
        box = page.locator(".picture").bounding_box()
        assert box is not None
        started = time.perf_counter()
        page.locator(".picture").click(position={"x": box["width"] * x, "y": box["height"] * y})
        expect(legend).to_contain_text("This point attends", timeout=WITHIN_MS)
        print(f"answer to a click after {time.perf_counter() - started:.2f} s", flush=True)


def one_behind_the_other(samples: Sequence[Sample], path: Path) -> Path:
    """The samples as one video."""

    def frames() -> Iterator[NDArray[np.uint8]]:
        with VideoReader() as reader:
            for sample in samples:
                count = int((sample.end_seconds - sample.start_seconds) * RATE)
                for chunk in reader.stream(sample.path, [index / RATE for index in range(count)]):
                    for frame in chunk.frames_thwc:
                        yield np.asarray(Image.fromarray(frame).resize(SIZE))

    write_video(path, frames(), fps=RATE)
    return path


def timeline(page: Page, video: Path) -> None:
    page.get_by_role("tab", name="Timeline").click()
    page.locator("#timeline-settings > button").click()
    page.get_by_label("Short:").check()
    page.locator("#timeline-settings > button").click()
    page.locator("#timeline-clip input[type=file]").set_input_files(video)
    expect(page.locator("#timeline[data-state=done]")).to_be_visible(timeout=WITHIN_MS)
    area = page.locator("#timeline-plot .area")
    box = area.bounding_box()
    assert box is not None
    area.click(position={"x": box["width"] * 0.2, "y": 60})
    page.wait_for_function("document.querySelector('#timeline-player video').currentTime > 0")


def folder_run(page: Page, files: Sequence[Path]) -> None:
    """Classify some files, and put the label of the first one right."""
    page.get_by_role("tab", name="Folder").click()
    page.locator("#files input[type=file]").set_input_files(files)
    expect(page.locator("#folder[data-state=done]")).to_be_visible(timeout=WITHIN_MS)
    fields = page.locator("#folder-table input.label")
    for number, label in enumerate(("stretching", "playing piano")):
        fields.nth(number).fill(label)
        fields.nth(number).press("Enter")
        expect(page.locator("#folder-table .state").nth(number)).not_to_be_empty(timeout=WITHIN_MS)


def teach_from_folder(page: Page) -> None:
    page.locator("#folder-table .teach-these").click()
    expect(page.locator(".teach-says")).to_contain_text("2 actions", timeout=WITHIN_MS)


def search(page: Page, clips: Sequence[Path]) -> None:
    """Search these clips for moments like one of the first."""
    page.get_by_role("tab", name="Search").click()
    page.locator("#search-clips input[type=file]").set_input_files(clips)
    expect(page.locator("#search[data-state=done]")).to_be_visible(timeout=WITHIN_MS)
    page.locator("#search-example input").click()
    page.get_by_role("option", name=clips[0].name).click()
    page.locator("#search-moment").click(timeout=WITHIN_MS)
    expect(page.locator("#search-results .moment")).not_to_have_count(0, timeout=WITHIN_MS)
    playing = "[...document.querySelectorAll('#search-results video')].every((one) => one.readyState >= 2)"
    page.wait_for_function(playing, timeout=WITHIN_MS)


def save(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture.save(IMAGES / name, quality=66, optimize=True)
    print(f"{name}: {(IMAGES / name).stat().st_size / 1000:.0f} kB", flush=True)


@contextmanager
def serving() -> Iterator[str]:
    """`nonlocal-video serve` on a free port; its address."""
    command = [sys.executable, "-m", "nonlocal_video", "serve", "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stderr is not None
        found = next(filter(None, (re.search(r"http://\S+", line) for line in process.stderr)))
        yield found[0]
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
