"""The seconds of the first picture are those of the page's player, a browser."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from nonlocal_video.video import VideoReader
from nonlocal_video.video.encode import write_video

pytestmark = pytest.mark.slow

FPS = 5
NUM_FRAMES = 12
LEVELS = [20 * number for number in range(1, NUM_FRAMES + 1)]
_SHOWN = """async ([address, seconds]) => {
    const video = document.createElement("video");
    const known = new Promise((found, failed) => {
        video.onloadeddata = found;
        video.onerror = () => failed(video.error.message);
    });
    video.muted = true;
    video.preload = "auto";
    video.src = address;
    const first = new Promise((found) => video.requestVideoFrameCallback((now, frame) => found(frame.mediaTime)));
    document.body.append(video);
    await known;
    const start = await first;
    const canvas = document.createElement("canvas");
    const drawing = canvas.getContext("2d");
    const brightness = [];
    for (const second of seconds) {
        const there = new Promise((found) => { video.onseeked = found; });
        video.currentTime = second;
        await there;
        // The picture is shown with the next ones of the page, not with the event.
        for (let drawn = 0; drawn < 3; drawn++) await new Promise(requestAnimationFrame);
        drawing.drawImage(video, 0, 0, 32, 32);
        brightness.push(drawing.getImageData(16, 16, 1, 1).data[0]);
    }
    video.remove();
    return [start, brightness];
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of twelve greys, and a sound."""
    folder = tmp_path_factory.mktemp("greys")
    write_video(folder / "film.mp4", (np.full((64, 96, 3), level, np.uint8) for level in LEVELS), fps=FPS)
    run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=440:duration=3", "sound.wav"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def reader() -> Iterator[VideoReader]:
    with VideoReader() as reader:
        yield reader


@pytest.fixture(scope="module")
def player(browser: Browser) -> Iterator[Page]:
    """An empty page, to which each test adds a player of its own."""
    page = browser.new_page()
    yield page
    page.close()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("at_once.mp4", "-i film.mp4 -c copy"),
        ("sound_first.mp4", "-itsoffset 0.7 -i film.mp4 -i sound.wav -c:v copy -c:a aac"),
        ("alone.mp4", "-itsoffset 0.7 -i film.mp4 -c copy"),
        ("alone.mov", "-itsoffset 0.7 -i film.mp4 -c copy"),
        ("both_late.mp4", "-itsoffset 0.7 -i film.mp4 -itsoffset 0.5 -i sound.wav -c:v copy -c:a aac"),
        ("sound_late.mp4", "-i film.mp4 -itsoffset 0.7 -i sound.wav -c:v copy -c:a aac"),
        ("reordered.mp4", "-i film.mp4 -c copy -use_editlist 0"),
        ("reordered_fragments.mp4", "-i film.mp4 -c copy -movflags frag_keyframe+empty_moov"),
        ("at_once.mkv", "-i film.mp4 -c copy"),
        ("sound_first.mkv", "-itsoffset 0.7 -i film.mp4 -i sound.wav -c:v copy -c:a libopus"),
        ("alone.mkv", "-itsoffset 0.7 -i film.mp4 -c copy"),
        ("alone.webm", "-itsoffset 0.7 -i film.mp4 -c:v libvpx -b:v 1M"),
        ("both_late.mkv", "-itsoffset 0.7 -i film.mp4 -itsoffset 0.5 -i sound.wav -c:v copy -c:a libopus"),
        ("recording.mkv", "-itsoffset 36000 -i film.mp4 -c copy"),
    ],
)
def test_the_first_picture_comes_when_a_browser_shows_it(
    player: Page, reader: VideoReader, folder: Path, name: str, arguments: str
) -> None:
    run(["ffmpeg", "-v", "error", *arguments.split(), name], cwd=folder, check=True)
    path = folder / name
    info = reader.probe(path)
    seconds = (info.start_seconds + (np.arange(NUM_FRAMES) + 0.5) / FPS).tolist()
    ours = reader.read(path, seconds).frames_thwc[:, 32, 48, 0]
    address = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    start, brightness = player.evaluate(_SHOWN, [address, seconds])
    assert info.start_seconds == pytest.approx(start, abs=0.01)  # sound's priming may come before 0
    np.testing.assert_allclose(ours, LEVELS, atol=3)
    np.testing.assert_allclose(brightness, LEVELS, atol=6)
