"""The page under load: many visitors at once, more than may wait, and many one after another."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from playwright.sync_api import Page, expect
from serving import Server, only_decoder, serving

from nonlocal_video.app.page import MAX_WAITING
from nonlocal_video.inference.load import load
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.video.encode import write_video

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from page_soak import files_in, held_by, visit
from page_visitor import Refused, Visitor, make_clip

pytestmark = pytest.mark.slow

NUM_VISITORS = 20
WARM_UP_VISITS, VISITS, AT_ONCE = 8, 16, 4
GROWTH_MIB = 40
"""A megabyte of each visit is more than a megapixel of it; what is free but not given back varies by less than this."""
WITHIN_MS = 60_000
DELETED_WITHIN_SECONDS = 60


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A clip of its own for each visitor, each longer than the one before."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(0)
    paths = [folder / f"visitor {number}.mp4" for number in range(NUM_VISITORS)]
    for number, path in enumerate(paths):
        tiles = random.integers(0, 256, (5 + number, 3, 4, 3), dtype=np.uint8)
        write_video(path, (np.kron(picture, np.ones((16, 16, 1), np.uint8)) for picture in tiles), fps=10)
    return paths


@pytest.fixture(scope="module")
def expected(clips: list[Path], tiny_model: Path) -> list[Prediction]:
    """The answers, no two of which are the same."""
    with load(tiny_model, device="cpu") as recognizer:
        predictions = [recognizer.classify(clip, fast=True) for clip in clips]
    assert len({prediction.summary for prediction in predictions}) == len(clips)
    return predictions


def test_twenty_visitors_at_once_get_the_answers_to_their_own_clips(
    small_server: Server, clips: list[Path], expected: list[Prediction]
) -> None:
    def visit(clip: Path) -> dict[str, Any]:
        with Visitor(small_server.url) as visitor:
            return visitor.recognise(visitor.upload(clip))

    with ThreadPoolExecutor(NUM_VISITORS) as pool:
        answers = list(pool.map(visit, clips))
    for clip, answer, prediction in zip(clips, answers, expected, strict=True):
        assert prediction.summary in answer["details"][0]
        shown = dict(answer["top"])
        assert shown == pytest.approx({scored.label: scored.score for scored in prediction.top(5)}, abs=1e-4)
        assert answer["name"] == clip.name
        assert answer["player"]["file"]["url"]


@pytest.fixture
def stopped(small_server: Server, clips: list[Path]) -> Iterator[psutil.Process]:
    """The process that decodes for the server; while it stands still, nothing is answered."""
    with Visitor(small_server.url) as visitor:
        visitor.recognise(visitor.upload(clips[0]))
    child = only_decoder(small_server)
    child.suspend()
    yield child
    with suppress(psutil.NoSuchProcess):  # replaced meanwhile
        child.resume()


@pytest.mark.browser
def test_who_waits_sees_the_position_and_one_too_many_is_told(
    small_server: Server, clips: list[Path], stopped: psutil.Process, page: Page
) -> None:
    def begin(stack: ExitStack) -> tuple[Visitor, Any]:
        visitor = stack.enter_context(Visitor(small_server.url))
        return visitor, visitor.choose(visitor.upload(clips[0]))

    too_many = page.context.new_page()
    for one in (page, too_many):
        one.goto(small_server.url)
        expect(one.locator("#intake .choose")).to_be_visible(timeout=WITHIN_MS)
    with ExitStack() as stack:
        begun = [begin(stack) for _ in range(2)]  # one of them runs, one waits
        page.locator("#clip-file").set_input_files(clips[1])
        expect(page.locator("#stage .doing")).to_contain_text("2 clips before yours", timeout=WITHIN_MS)
        begun += [begin(stack) for _ in range(MAX_WAITING - 2)]
        with pytest.raises(Refused, match=r"^The server is busy: 32 clips are waiting"):
            begin(stack)
        too_many.locator("#clip-file").set_input_files(clips[1])
        expect(too_many.locator("#stage .doing")).to_contain_text("The server is busy", timeout=WITHIN_MS)
        stopped.resume()
        with ThreadPoolExecutor(len(begun)) as pool:
            answers = list(pool.map(lambda visit: visit[0].finish(visit[1])["stage"], begun))
        assert all(answer["top"] for answer in answers)
    too_many.locator("#clip-file").set_input_files(clips[1])
    for one in (page, too_many):
        expect(one.locator("#stage .headline")).not_to_be_empty(timeout=WITHIN_MS)


def test_many_visits_leave_nothing_behind_but_the_samples(tmp_path: Path, tiny_model: Path) -> None:
    clip, note, temporary = tmp_path / "clip.mp4", tmp_path / "note.mp4", tmp_path / "server"
    (tmp_path / "samples").mkdir()
    make_clip(clip, seconds=1, width=640, height=480)
    make_clip(tmp_path / "samples" / "dancer.mp4", seconds=1, width=64, height=48)
    cache = {"NONLOCAL_VIDEO_CACHE": str(tmp_path)}
    note.write_text("not a video at all\n" * 20)
    temporary.mkdir()
    in_turn = [clip, clip, clip, note]
    arguments = ("--model", str(tiny_model), "--keep-minutes", "0.25")  # on a busy machine a visit takes seconds
    with serving(temporary, *arguments, environment=cache) as small:
        server = psutil.Process(small.process.pid)

        def come(numbers: range) -> Counter[str]:
            """Some visits at once: each waits a second for streams that the server holds open."""
            with ThreadPoolExecutor(AT_ONCE) as pool:
                return Counter(
                    pool.map(lambda n: visit(small.url, in_turn[n % len(in_turn)], n.to_bytes(8, "big")), numbers)
                )

        outcomes = come(range(WARM_UP_VISITS))
        only_decoder(small)
        warm = held_by(server, temporary)
        outcomes += come(range(WARM_UP_VISITS, WARM_UP_VISITS + VISITS))
        only_decoder(small)
        last = held_by(server, temporary)
        assert outcomes["answered"] == 3 * (WARM_UP_VISITS + VISITS) // 4
        assert set(outcomes) == {"answered", "the file: it is not a video file of a known format; give a video."}
        assert last["server_mib"] - warm["server_mib"] < GROWTH_MIB
        assert last["children"] == warm["children"] == 1
        assert last["open_files"] <= warm["open_files"] + 2, "connections that just end"
        assert last["temporary_files"] > 0
        deadline = time.monotonic() + DELETED_WITHIN_SECONDS
        while time.monotonic() < deadline and held_by(server, temporary)["temporary_files"]:
            time.sleep(0.2)
        assert not files_in(temporary)
        with Visitor(small.url) as visitor:
            assert visitor.recognise({"sample": 0})["top"]
