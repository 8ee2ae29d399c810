"""Files that are hardly videos, or not at all, uploaded to a server: one plain sentence each, and it keeps serving."""

from __future__ import annotations

import csv
import struct
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from serving import Server

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from page_visitor import Failed, Visitor

from nonlocal_video.app import texts

pytestmark = pytest.mark.slow

WITHIN_MS = 60_000
WIDTH, HEIGHT = 32, 24
NUM_VISITORS = 8
"""They share the files: the server holds each stream of answers open for a while after its last event."""


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few bytes that claim to be a frame of 16384 x 16384."""
    path = tmp_path_factory.mktemp("huge") / "huge.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr24"
        container.mux(stream.encode(_black()))
        container.mux(stream.encode())
    data = path.read_bytes()
    (header,) = {
        header for sign in (1, -1) if (header := struct.pack("<Iii", 40, WIDTH, sign * HEIGHT)) in data
    }  # stored from the top or from the bottom
    path.write_bytes(data.replace(header, struct.pack("<Iii", 40, 16384, 16384)))
    return path


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames, 25 hours apart."""
    path = tmp_path_factory.mktemp("endless") / "endless.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1)
        for seconds in (0, 25 * 3600):
            frame = _black()
            frame.pts, frame.time_base = seconds, Fraction(1, 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _black() -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8), format="rgb24")


@pytest.fixture(scope="module")
def files(data_folder: Path, huge: Path, endless: Path) -> list[Path]:
    return [*sorted((data_folder / "awkward").iterdir()), huge, endless]


def shared_out(server: Server, files: Iterable[Path], ask: Callable[[Visitor, Path], Any]) -> dict[Path, Any]:
    """Ask about files, several visitors at once with a share each; return the answers by file."""
    paths = list(files)

    def visit(share: list[Path]) -> dict[Path, Any]:
        with Visitor(server.url) as visitor:
            return {path: ask(visitor, path) for path in share}

    with ThreadPoolExecutor(NUM_VISITORS) as pool:
        shares = pool.map(visit, [paths[number::NUM_VISITORS] for number in range(NUM_VISITORS)])
        found = {path: answer for share in shares for path, answer in share.items()}
    return {path: found[path] for path in paths}


@pytest.fixture(scope="module")
def errors(small_server: Server, files: list[Path]) -> dict[Path, dict[str, Any]]:
    """Return what /classify says of the files that it refuses: `code` and `message`."""

    def classify(visitor: Visitor, path: Path) -> dict[str, Any]:
        return dict(visitor.call("classify", visitor.upload(path), "tiny", "fast", 5, "")[0])

    rows = shared_out(small_server, files, classify)
    assert all((row["status"] == "error") == bool(row["error"]) for row in rows.values())
    return {path: row["error"] for path, row in rows.items() if row["error"]}


def test_what_is_no_video_is_refused_and_most_of_the_rest_is_not(
    errors: dict[Path, dict[str, Any]], files: list[Path], data_folder: Path
) -> None:
    with (data_folder / "manifest.csv").open(encoding="utf-8") as manifest:
        without_frames = {Path(row["path"]).name for row in csv.DictReader(manifest) if row["frames"] == "0"}
    refused = {path.name: error["code"] for path, error in errors.items()}
    assert without_frames < set(refused)
    assert (refused["huge.avi"], refused["endless.mkv"]) == ("too_large", "too_long")
    assert (refused["empty.mp4"], refused["audio_only.mp4"]) == ("not_a_video", "no_video_stream")
    assert len(refused) < len(files) / 3


def test_each_refusal_is_one_plain_sentence(errors: dict[Path, dict[str, Any]]) -> None:
    for path, error in errors.items():
        name, _, words = error["message"].partition(": ")
        assert name == path.name
        assert words.endswith(".")
        for unwanted in ("\n", "/", "<", "Traceback", "Error", "Errno"):
            assert unwanted not in words, error["message"]


def test_the_page_says_the_same_and_goes_on(
    small_server: Server, errors: dict[Path, dict[str, Any]], clip_folder: Path
) -> None:
    def refused(visitor: Visitor, path: Path) -> str:
        with pytest.raises(Failed) as failed:
            visitor.recognise(visitor.upload(path))
        assert visitor.recognise(visitor.upload(clip_folder / "a.mp4"))["top"]
        return str(failed.value)

    said = shared_out(small_server, errors, refused)
    assert said == {path: error["message"] for path, error in errors.items()}


@pytest.mark.browser
def test_a_browser_shows_it(
    page: Page, small_server: Server, errors: dict[Path, dict[str, Any]], clip_folder: Path
) -> None:
    names = ("text_renamed.mp4", "audio_only.mp4", "truncated_no_moov.mp4", "empty.mp4", "huge.avi")
    page.goto(small_server.url)
    page.locator("#settings > button").click()
    expect(page.locator("#limits")).to_contain_text("Up to 500 MB, 24 hours and 36 megapixels a frame.")
    for path, error in errors.items():
        if path.name in names:
            page.locator("#clip-file").set_input_files(path)
            words = error["message"].removeprefix(f"{path.name}: ")
            expect(page.locator("#stage .doing")).to_have_text(words, timeout=WITHIN_MS)
            expect(page.locator("#stage .clip-name")).to_have_text(path.name)
            expect(page.locator("#stage .headline")).to_have_text(texts.TROUBLES[error["code"]])
            expect(page.get_by_text("Your browser cannot play")).to_be_hidden()
            for hidden in (".player", ".details", ".run-again"):
                expect(page.locator(f"#stage {hidden}")).to_be_hidden()
            expect(page.locator("#intake .big")).to_be_in_viewport()
    page.locator("#clip-file").set_input_files(clip_folder / "a.mp4")
    expect(page.locator("#stage .player")).to_have_class("player ready", timeout=WITHIN_MS)
    expect(page.locator("#stage .headline")).to_contain_text("action")
    expect(page.locator("#stage .doing")).to_be_empty()
    expect(page.locator("#intake .big")).to_be_hidden()
