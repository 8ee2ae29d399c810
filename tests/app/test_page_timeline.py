"""Long videos as visitors meet them: a real browser, a small model."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from playwright.sync_api import Page, expect
from serving import serving_here
from visiting import WITHIN_MS

from nonlocal_video.app.application import create_app
from nonlocal_video.app.sentences import figure
from nonlocal_video.inference.load import load
from nonlocal_video.models.checkpoint import save_checkpoint
from nonlocal_video.video.encode import write_video

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

PLAYER = "#timeline-player video"


def colours(num_seconds: int) -> NDArray[np.uint8]:
    """A colour for two seconds each, ten frames a second: (T, 72, 96, 3)."""
    chosen = np.random.default_rng(2).integers(0, 256, (num_seconds // 2, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(chosen.repeat(20, axis=0), (num_seconds // 2 * 20, 72, 96, 3))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[str]:
    """Address of the page with a small model that takes each of these colours for something else."""
    with load(tiny_model, device="cpu") as recognizer:
        network, card = recognizer.network, recognizer.card
    side = card.input.crop
    seen = torch.from_numpy(colours(8)[::20, :1, :1].copy()).reshape(4, 3, 1, 1, 1).expand(4, 3, 8, side, side)
    with torch.no_grad():
        logits = network(seen / 127.5 - 1)
        network.fc.bias -= logits.mean(dim=0)
        for parameter in network.fc.parameters():
            parameter *= 3 / (logits - logits.mean(dim=0)).std()
    folder = tmp_path_factory.mktemp("timeline")
    save_checkpoint(folder / "tiny.safetensors", network, card, dtype=torch.float32)
    with (
        pytest.MonkeyPatch.context() as patch,
        load(folder / "tiny.safetensors", device="cpu", runtime="torch") as recognizer,
    ):
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        with serving_here(create_app([recognizer])) as url:
            yield url


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "holiday.mp4"
    write_video(path, colours(8), fps=10)
    return path


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes: more than this test waits for."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "part.mp4", colours(20), fps=10)
    parts = ["-stream_loop", "29", "-i", "part.mp4", "-c", "copy"]
    subprocess.run(["ffmpeg", "-v", "error", *parts, "long.mp4"], cwd=folder, check=True)
    return folder / "long.mp4"


@pytest.fixture(scope="module")
def unplayable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MPEG-4 AVI, which no browser plays."""
    path = tmp_path_factory.mktemp("videos") / "old.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = 72, 96
        for picture in colours(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def open_timeline(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_role("tab", name="Timeline").click()
    expect(page.locator("#timeline[data-state=empty]")).to_be_visible(timeout=WITHIN_MS)


def drop(page: Page, clip: Path) -> None:
    """Give the tab a video; nothing is pressed."""
    page.locator("#timeline-clip input[type=file]").set_input_files(clip)


def ended(page: Page, state: str = "done") -> None:
    expect(page.locator(f"#timeline[data-state={state}]")).to_be_visible(timeout=WITHIN_MS)


def seconds_of_player(page: Page) -> float:
    return float(page.evaluate(f"document.querySelector('{PLAYER}').currentTime"))


def marked_seconds(page: Page) -> float:
    return float(page.locator("#timeline-plot .area").get_attribute("aria-valuenow") or "nan")


def point_at(page: Page, share: float, *, click: bool) -> str:
    """Point at a place of the plot, in a fraction of its width; what it says there."""
    area = page.locator("#timeline-plot .area")
    box = area.bounding_box()
    assert box is not None
    position = {"x": box["width"] * share, "y": 40.0}
    (area.click if click else area.hover)(position=position)
    return page.locator("#timeline-plot .tip").inner_text()


def test_a_timeline_is_shown_and_seeks_the_player(page: Page, url: str, video: Path) -> None:
    open_timeline(page, url)
    expect(page.locator("#timeline-player")).to_be_hidden()
    gear = page.locator("#timeline-settings > button")
    gear.click()
    expect(page.locator("#timeline-cost")).to_contain_text("A minute of video takes 150 looks at 8 frames")
    page.get_by_label("A quarter").check()
    expect(page.locator("#timeline-cost")).to_contain_text("300 looks", timeout=WITHIN_MS)
    gear.click()
    drop(page, video)
    ended(page)
    expect(page.locator("#timeline-said .details")).to_contain_text("37 windows in")
    expect(page.get_by_role("button", name="Look again")).to_be_visible()

    contents = {}
    for ending in ("json", "csv", "vtt"):
        with page.expect_download() as download:
            page.locator(f"#timeline-downloads a[download$={ending}]").first.click()
        contents[ending] = download.value.path().read_text()
    found = json.loads(contents["json"])
    assert (found["path"], found["status"], len(found["windows"])) == ("holiday.mp4", "ok", 37)
    assert contents["csv"].startswith("start_seconds,end_seconds,top1_label")
    assert contents["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> ")

    segments = found["segments"]
    labels = {segment["label"] for segment in segments}
    assert len(labels) > 1, "a video in which something changes"
    expect(page.locator("#timeline-plot .legend span")).to_have_count(len(labels))
    listed = page.locator("#timeline-plot .segments button")
    assert listed.locator("span").all_inner_texts() == [segment["label"] for segment in segments]
    assert page.locator("#timeline-said .headline").inner_text().lower().startswith(tuple(labels | {"mostly"}))

    page.wait_for_function(f"document.querySelector('{PLAYER}').readyState >= 1")
    tip = point_at(page, 0.5, click=False)
    assert re.match(r"0:0[34]\.\d\naction \d [<>]?\d+%", tip)
    assert seconds_of_player(page) == 0, "pointing does not seek"
    point_at(page, 0.5, click=True)
    assert seconds_of_player(page) == pytest.approx(4, abs=0.1)
    assert marked_seconds(page) == pytest.approx(4, abs=0.1)
    point_at(page, 0.9, click=True)
    assert seconds_of_player(page) == pytest.approx(7.2, abs=0.1)
    listed.nth(1).click()
    begin = segments[1]["start_seconds"]
    page.wait_for_function(f"Math.abs(document.querySelector('{PLAYER}').currentTime - {begin}) < 0.05")

    page.locator("#timeline-plot .area").focus()
    page.keyboard.press("Home")
    assert seconds_of_player(page) == 0
    page.keyboard.press("ArrowRight")
    assert seconds_of_player(page) == pytest.approx(0.2, abs=0.01)
    said = page.locator("#timeline-plot .area").get_attribute("aria-valuetext") or ""
    assert re.match(r"0:00\.2, action \d [<>]?\d+%", said)
    page.evaluate(f"document.querySelector('{PLAYER}').play()")
    page.wait_for_function("document.querySelector('#timeline-plot .area').getAttribute('aria-valuenow') > 0.5")
    captions = page.evaluate(f"[...document.querySelector('{PLAYER}').textTracks[0].cues].map(cue => cue.text)")
    assert captions == [f"{segment['label']} {figure(segment['score'])}" for segment in segments]

    drop(page, video)  # another one takes its place
    expect(page.locator("#timeline[data-state=working]")).to_be_visible(timeout=WITHIN_MS)
    ended(page)


def test_the_players_clock_is_that_of_the_timeline(page: Page, url: str, video: Path, tmp_path: Path) -> None:
    """The sound begins 0.7 s before the picture: a browser counts from the sound on, and so do we."""
    sound = ["-f", "lavfi", "-i", "sine=440:duration=8", "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac"]
    path = tmp_path / "late.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-itsoffset", "0.7", "-i", str(video), *sound, str(path)], check=True)
    open_timeline(page, url)
    drop(page, path)
    ended(page)
    first = f"""new Promise(shown => {{
        const player = document.querySelector('{PLAYER}');
        player.requestVideoFrameCallback((_, picture) => shown(picture.mediaTime));
        player.currentTime = 0.71;
    }})"""
    assert page.evaluate(first) == pytest.approx(0.7, abs=0.01)
    page.locator("#timeline-plot .area").focus()
    page.keyboard.press("End")
    assert marked_seconds(page) == seconds_of_player(page) == pytest.approx(8.7, abs=0.06)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")  # to where the first window begins
    assert marked_seconds(page) == seconds_of_player(page) == pytest.approx(0.7, abs=0.01)
    cues = f"[...document.querySelector('{PLAYER}').textTracks[0].cues].map(cue => cue.startTime)"
    assert page.evaluate(cues)[0] == pytest.approx(0.7, abs=0.01)


def test_results_come_while_a_video_is_looked_at_and_stop_ends_the_work(page: Page, url: str, long_video: Path) -> None:
    process = psutil.Process()
    before = set(process.children())
    open_timeline(page, url)
    drop(page, long_video)
    doing = page.locator("#timeline-said .doing")
    expect(doing).to_contain_text(re.compile(r"1499 windows, \d+ done, about .* left"), timeout=WITHIN_MS)
    expect(page.locator("#timeline-said [role=progressbar]")).to_have_attribute("aria-valuenow", re.compile(r"\d+"))
    expect(page.locator("#timeline-plot polyline").first).to_be_attached()
    tip = point_at(page, 0.99, click=False)
    assert "not looked at yet" in tip
    expect(page.locator("#timeline-downloads")).to_be_hidden()

    stop = page.locator("#timeline-said .stop-run")
    stop.click()
    expect(stop).to_be_hidden(timeout=1_000)
    expect(doing).to_contain_text(re.compile(r"Stopped at .*, after \d+ of 1499 windows"), timeout=WITHIN_MS)
    with page.expect_download() as download:
        page.locator("#timeline-downloads a").first.click()
    assert json.loads(download.value.path().read_text())["status"] == "stopped"
    _, alive = psutil.wait_procs([child for child in process.children() if child not in before], timeout=30)
    assert not alive, "the process that decoded this video is gone"

    page.get_by_role("button", name="Look again").click()
    expect(doing).to_contain_text("1499 windows, ", timeout=WITHIN_MS)
    stop.click()
    ended(page, "stopped")


def test_what_the_browser_cannot_play_is_said_and_answered(page: Page, url: str, unplayable: Path) -> None:
    open_timeline(page, url)
    drop(page, unplayable)
    expect(page.locator("#timeline-player")).to_contain_text("cannot play this kind of file", timeout=WITHIN_MS)
    expect(page.locator(PLAYER)).to_be_hidden()
    ended(page)
    assert re.match(r"0:02\.0\naction", point_at(page, 0.5, click=True))
    assert marked_seconds(page) == pytest.approx(2, abs=0.05)


def test_a_file_that_is_no_video_is_the_headline(page: Page, url: str, clip_folder: Path) -> None:
    open_timeline(page, url)
    drop(page, clip_folder / "b" / "note.mp4")
    ended(page, "error")
    expect(page.locator("#timeline-said .headline")).to_have_text("This is not a video")
    expect(page.locator("#timeline-said .doing")).to_contain_text("note.mp4: it is not a video")
    expect(page.locator("#timeline-said [role=progressbar]")).to_be_hidden()
    expect(page.locator("#timeline-said .stop-run")).to_be_hidden()
    expect(page.locator("#timeline-clip .choose")).to_be_visible()
