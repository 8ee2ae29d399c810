"""Measure how long a visitor waits for the first answer, in a browser: from the choice of a clip to what is seen.

    python benchmarks/page_first_answer.py --output benchmarks/results/page_first_answer.json

The clip is 10 s of 320 x 240 pixels, the model the default one with its quick look, on the processor. The first visit,
for which the model may still be cold, is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from page_visitor import make_clip, serving
from playwright.sync_api import Page, sync_playwright

from nonlocal_video.benchmark.machine import describe_machine

WITHIN_MS = 300_000
POLLING_MS = 25


def first_answer(page: Page, url: str, clip: Path, *, quick: bool = True) -> dict[str, float]:
    """Seconds from the choice of the clip until the scores are shown, and until what they rest on is played."""
    page.goto(url)
    page.locator("#recognise, #settings > button").first.wait_for()  # the earlier page's, or today's
    if page.locator("#recognise").count():
        return _with_a_press(page, clip, quick=quick)
    page.locator("#settings > button").click()
    page.get_by_label("Quick look").set_checked(quick)
    page.locator("#settings > button").click()
    started = time.perf_counter()
    page.locator("#clip-file").set_input_files(clip)
    _wait(page, "document.querySelector('#stage .headline').textContent")
    scores = time.perf_counter() - started
    _wait(page, "document.querySelector('.player.ready .span')?.currentTime > 0")
    return {"scores": scores, "maps": time.perf_counter() - started}


def _with_a_press(page: Page, clip: Path, *, quick: bool) -> dict[str, float]:
    """Time a visit to a page that waits for a press, for `two_versions.py`; it is pressed at once."""
    page.get_by_label("Quick look").set_checked(quick)
    started = time.perf_counter()
    page.locator("#clip input[type=file]").set_input_files(clip)
    page.locator("#recognise:enabled").click(timeout=WITHIN_MS)
    _wait(page, "document.querySelector('#scores h2')?.checkVisibility()")
    scores = time.perf_counter() - started
    _wait(page, "document.querySelector('#strip img')?.checkVisibility()")
    _wait(page, "document.querySelector('#overlay video')?.currentTime > 0")
    return {"scores": scores, "maps": time.perf_counter() - started}


def _wait(page: Page, condition: str) -> None:
    page.wait_for_function(condition, timeout=WITHIN_MS, polling=POLLING_MS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=7)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    visits = []
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-") as name, sync_playwright() as playwright:
        temporary = Path(name) / "server"
        temporary.mkdir()
        with serving(temporary=temporary) as (url, _):
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            load_before = os.getloadavg()[0]
            for number in range(1 + arguments.visits):
                clip = Path(name) / f"clip {number}.mp4"
                make_clip(clip, seed=number)
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                visits.append(first_answer(context.new_page(), url, clip))
                context.close()
                print({stage: round(seconds, 2) for stage, seconds in visits[-1].items()}, flush=True)
            browser.close()
    counted = visits[1:]
    figures = {
        "clip": "10 s, 320 x 240, 25 frames/s, H.264",
        "view": "quick look",
        "visits": len(counted),
        "median_seconds": {stage: round(statistics.median(v[stage] for v in counted), 2) for stage in counted[0]},
        "slowest_seconds": {stage: round(max(v[stage] for v in counted), 2) for stage in counted[0]},
        "load_of_the_machine_before": round(load_before, 1),
        "machine": describe_machine(),
    }
    print(json.dumps(figures, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
