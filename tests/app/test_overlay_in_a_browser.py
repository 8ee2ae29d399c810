"""A browser plays an overlay film for as long as the view lasts, at rates that no film has."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from nonlocal_video.video.encode import write_video

pytestmark = pytest.mark.slow

_DURATION = """async (address) => {
    const video = document.createElement("video");
    const known = new Promise((found, failed) => {
        video.onloadeddata = () => found([video.duration, video.videoWidth]);
        video.onerror = () => failed(video.error.message);
    });
    video.muted = true;
    video.preload = "auto";
    video.src = address;
    return await known;
}"""


@pytest.fixture(scope="module")
def player(browser: Browser) -> Iterator[Page]:
    """An empty page."""
    page = browser.new_page()
    yield page
    page.close()


@pytest.mark.parametrize("fps", [0.001, 0.2, Fraction(15000, 1001), 25, 1000])
@pytest.mark.parametrize("num_frames", [1, 8])
def test_a_browser_sees_the_films_length(player: Page, tmp_path: Path, fps: Fraction, num_frames: int) -> None:
    path = tmp_path / "film.mp4"
    write_video(path, (np.full((64, 96, 3), 20 * k, np.uint8) for k in range(num_frames)), fps=fps)
    address = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    duration, width = player.evaluate(_DURATION, address)
    assert duration == pytest.approx(num_frames / fps, rel=1e-3, abs=1e-3)
    assert width == 96
