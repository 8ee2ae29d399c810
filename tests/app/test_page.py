"""The page as its visitors meet it: real clips, a real server, a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from playwright.sync_api import Page, expect
from serving import Server, serving

from nonlocal_video.video.decode import VideoReader

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

RATE = 25
ANSWER_WITHIN_MS = 120_000
"""For two slow cores that others use too."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page with the default model."""
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def archery(data_folder: Path) -> Path:
    """An MPEG-4 AVI, which no browser plays."""
    return next((data_folder / "clips" / "archery").glob("*.avi"))


@pytest.fixture(scope="session")
def archery_webm(archery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first three seconds as VP9, which is what browsers record."""
    path = tmp_path_factory.mktemp("webm") / "archery.webm"
    with VideoReader() as reader:
        chunks = reader.stream(archery, [index / RATE for index in range(3 * RATE)])
        pictures = [picture for chunk in chunks for picture in chunk.frames_thwc]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=RATE, options={"deadline": "realtime", "cpu-used": "8"})
        stream.height, stream.width = pictures[0].shape[:2]
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def open_page(page: Page, server: Server) -> None:
    page.goto(server.url)
    expect(page.locator("#recognise")).to_be_disabled()


def recognise(page: Page, clip: Path, *, views: str = "Quick look") -> None:
    """Choose a clip and press the button."""
    remove = page.locator("#clip").get_by_label("Clear")
    if remove.is_visible():
        remove.click()
        expect(page.locator("#recognise")).to_be_disabled()  # a press for the clip before would be cancelled
    page.locator("#clip input[type=file]").set_input_files(clip)
    page.get_by_label(views).check()
    expect(page.locator("#recognise")).to_be_enabled()
    page.locator("#recognise").click()


def expect_overlays(page: Page) -> None:
    """The overlay plays, and the strip has pictures with their times."""
    expect(page.locator("#strip img").first).to_be_visible(timeout=ANSWER_WITHIN_MS)
    page.wait_for_function(
        """() => {
            const video = document.querySelector("#overlay video");
            return video.readyState >= 2 && video.videoWidth > 0 && !video.error && video.currentTime > 0;
        }"""
    )
    assert 1 < page.locator("#strip img").count() <= 16
    page.wait_for_function("document.querySelector('#strip img').naturalWidth > 0")
    assert (page.locator("#strip img").first.get_attribute("alt") or "").endswith(" s")


def test_a_clip_is_recognised(page: Page, server: Server, archery: Path) -> None:
    open_page(page, server)
    recognise(page, archery, views="Standard")

    expect(page.locator("#scores h2")).to_have_text("archery", timeout=ANSWER_WITHIN_MS)
    expect(page.locator("#scores dt")).to_have_count(5)
    expect(page.locator("#status")).to_contain_text("1x1 view(s) of 64 frames")
    expect_overlays(page)
    expect(page.locator("#notes")).to_contain_text("until it is trained")


def test_a_vp9_webm_is_recognised(page: Page, server: Server, archery_webm: Path) -> None:
    open_page(page, server)
    recognise(page, archery_webm)

    expect(page.locator("#scores")).to_contain_text("archery", timeout=ANSWER_WITHIN_MS)
    expect_overlays(page)


def test_a_bad_file_gives_one_sentence_and_the_page_goes_on(
    page: Page, server: Server, archery: Path, tmp_path: Path
) -> None:
    note = tmp_path / "holiday.mp4"
    note.write_text("This is not a video.\n" * 20)
    open_page(page, server)
    recognise(page, note)

    message = page.locator(".toast-body")
    expect(message).to_contain_text("holiday.mp4: it is not a video", timeout=ANSWER_WITHIN_MS)
    assert str(server.temporary) not in message.inner_text()
    assert "Traceback" not in message.inner_text()
    expect(page.locator("#results")).to_be_hidden()
    message.get_by_label("Close").click()

    recognise(page, archery)
    expect(page.locator("#scores")).to_contain_text("archery", timeout=ANSWER_WITHIN_MS)
    expect_overlays(page)


def test_another_clip_takes_the_last_answer_away(page: Page, server: Server, archery: Path) -> None:
    open_page(page, server)
    recognise(page, archery)
    expect(page.locator("#scores h2")).to_be_visible(timeout=ANSWER_WITHIN_MS)
    page.locator("#clip").get_by_label("Clear").click()
    expect(page.locator("#results")).to_be_hidden()
    expect(page.locator("#recognise")).to_be_disabled()


def test_gradio_never_runs_ffmpeg_on_an_upload(page: Page, archery: Path, tmp_path: Path, tiny_model: Path) -> None:
    """Decoding happens in a process of ours with limits; ffmpeg, where there is one, sees only our own overlays."""
    programs, log = tmp_path / "programs", tmp_path / "log"
    programs.mkdir()
    log.touch()
    for name in ("ffmpeg", "ffprobe"):
        (programs / name).write_text(f'#!/bin/sh\necho "$0 $@" >> "{log}"\nexit 1\n')
        (programs / name).chmod(0o755)
    folder = tmp_path / "server"
    folder.mkdir()
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    with serving(folder, "--model", str(tiny_model), environment={"PATH": path}) as server:
        open_page(page, server)
        recognise(page, archery)
        expect_overlays(page)
        page.goto("about:blank")
    calls = log.read_text().splitlines()
    assert calls, "the programs of this test were not found"
    assert all("overlay.mp4" in call for call in calls)


def test_the_page_needs_no_ffmpeg(page: Page, archery: Path, tmp_path: Path, tiny_model: Path) -> None:
    with serving(tmp_path, "--model", str(tiny_model), environment={"PATH": str(tmp_path)}) as server:
        open_page(page, server)
        recognise(page, archery)
        expect_overlays(page)
        page.goto("about:blank")
