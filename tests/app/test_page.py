"""The page as its visitors meet it: real clips, a real server, a real browser."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from playwright.sync_api import Page, expect
from serving import Server, serving
from visiting import answered, choose, open_page, set_view

from nonlocal_video.video.decode import VideoReader

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

RATE = 25
ANSWER_WITHIN_MS = 120_000
"""Timeout for two slow cores that others use too."""


@pytest.fixture(scope="module")
def ffmpeg_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File beside programs that write into it what they are run with, under the names of FFmpeg's."""
    programs = tmp_path_factory.mktemp("programs")
    log = programs / "log"
    log.touch()
    for name in ("ffmpeg", "ffprobe"):
        (programs / name).write_text(f'#!/bin/sh\necho "$0 $@" >> "{log}"\nexit 1\n')
        (programs / name).chmod(0o755)
    return log


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ffmpeg_log: Path) -> Iterator[Server]:
    """The page with the default model, and with an FFmpeg that is only noted."""
    path = f"{ffmpeg_log.parent}{os.pathsep}{os.environ['PATH']}"
    with serving(tmp_path_factory.mktemp("server"), environment={"PATH": path}) as server:
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


def expect_preview(page: Page) -> None:
    """The player plays what the network saw, with heat over it."""
    page.wait_for_function(
        """() => {
            const video = document.querySelector(".player .span");
            return !video.hidden && video.readyState >= 2 && video.videoWidth > 0 && video.currentTime > 0;
        }"""
    )
    page.wait_for_function(
        """() => {
            const canvas = document.querySelector(".player .heat");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return data.some((value, i) => i % 4 === 0 && value > 100);
        }"""
    )


def test_a_clip_is_recognised(page: Page, server: Server, archery: Path) -> None:
    open_page(page, server)
    choose(page, archery)
    answered(page, within_ms=ANSWER_WITHIN_MS)
    expect(page.locator("#stage .headline")).to_have_text("archery")
    expect(page.locator("#stage .confidence")).to_have_text(re.compile(r"^(Very|Fairly) sure, (over )?\d+%$"))
    expect(page.locator("#stage .answer-bar")).to_have_count(5)
    expect(page.locator("#stage .legend")).to_have_text("Bright places speak for “archery”.")
    expect_preview(page)
    page.locator("#stage .details summary").click()
    expect(page.locator("#stage .details")).to_contain_text("1 view of 64 frames")


def test_a_vp9_webm_is_recognised(page: Page, server: Server, archery_webm: Path) -> None:
    open_page(page, server)
    set_view(page, "Quick look")
    choose(page, archery_webm)
    answered(page, within_ms=ANSWER_WITHIN_MS)
    expect(page.locator("#stage .bars")).to_contain_text("archery")
    expect_preview(page)


def test_a_bad_file_gives_one_sentence_and_the_page_goes_on(
    page: Page, server: Server, archery: Path, tmp_path: Path
) -> None:
    note = tmp_path / "holiday.mp4"
    note.write_text("This is not a video.\n" * 20)
    open_page(page, server)
    set_view(page, "Quick look")
    choose(page, note)
    message = page.locator("#stage .doing")
    expect(message).to_contain_text("it is not a video", timeout=ANSWER_WITHIN_MS)
    expect(page.locator("#stage .clip-name")).to_have_text("holiday.mp4")
    assert str(server.temporary) not in message.inner_text()
    expect(page.locator("#stage .bars button")).to_have_count(0)
    choose(page, archery)
    answered(page, within_ms=ANSWER_WITHIN_MS)
    expect(page.locator("#stage .bars")).to_contain_text("archery")


def test_gradio_never_runs_ffmpeg_on_anything(page: Page, server: Server, ffmpeg_log: Path, archery: Path) -> None:
    """Decoding happens in a process of ours with limits, and the player's film is written by ours."""
    open_page(page, server)
    set_view(page, "Quick look")
    choose(page, archery)
    answered(page, within_ms=ANSWER_WITHIN_MS)
    page.goto("about:blank")
    assert not ffmpeg_log.read_text(), "nor by what the tests before this one sent"
