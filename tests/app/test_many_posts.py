"""Far more posts at once than may wait: each is answered or refused as busy, and memory stays bounded."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fastapi
import httpx
import numpy as np
import psutil
import pytest
from colour_clips import COLOURS, write_colour

from nonlocal_video.app.http_api import HttpApi
from nonlocal_video.app.http_routes import add_http_api
from nonlocal_video.app.jobs import Jobs
from nonlocal_video.app.turns import Turns
from nonlocal_video.inference.prediction import Prediction, StageTimings
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.info import VideoInfo

POSTS, MAX_WAITING = 200, 32
CLIP_BYTES = 1_200_000
"""Above what Starlette keeps of an upload in memory; 240 MB in all."""
GROWTH_BYTES = 120_000_000
WITHIN_SECONDS = 60


class Held:
    """A recognizer that answers nothing until it is let go."""

    def __init__(self, info: VideoInfo) -> None:
        self.go, self._info = threading.Event(), info

    def classify(self, path: Path, **_: Any) -> Prediction:
        assert path.stat().st_size == CLIP_BYTES
        assert self.go.wait(WITHIN_SECONDS)
        return Prediction(
            path=str(path), model="held", labels=("a", "b"), scores=np.array([0.25, 0.75]), video=self._info, views=(),
            num_crops=1, num_frames=1, crop=1, device="cpu", timings=StageTimings(0.0, 0.0, 0.0),
        )  # fmt: skip


@pytest.mark.slow
def test_two_hundred_posts_at_once_are_answered_or_refused(tmp_path: Path) -> None:
    write_colour(tmp_path / "red.mp4", COLOURS["red"], 0)
    with VideoReader() as reader:
        held: Any = Held(reader.probe(tmp_path / "red.mp4"))
    app = fastapi.FastAPI()
    jobs = Jobs(max_waiting=1, keep_seconds=1)
    add_http_api(app, HttpApi({"held": held}, Turns(MAX_WAITING), jobs, max_upload_bytes=CLIP_BYTES))
    answers: list[httpx.Response] = []
    grown: list[int] = []
    process, clip = psutil.Process(), b"\0" * CLIP_BYTES

    async def post(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/classify", files={"file": ("a.mp4", clip)}, timeout=WITHIN_SECONDS)
        answers.append(answer)
        if len(answers) == POSTS - MAX_WAITING - 1:  # the rest is in work or waits
            grown.append(process.memory_info().rss - before)
            held.go.set()

    async def post_all() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            await asyncio.gather(*(post(client) for _ in range(POSTS)))

    before = process.memory_info().rss
    with ThreadPoolExecutor(1) as pool:  # this thread may have the loop of the browser's tests
        pool.submit(asyncio.run, post_all()).result(2 * WITHIN_SECONDS)
    assert Counter(answer.status_code for answer in answers) == {200: MAX_WAITING + 1, 503: POSTS - MAX_WAITING - 1}
    busy = [answer for answer in answers if answer.status_code == 503]
    assert {answer.json()["code"] for answer in busy} == {"busy"}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in busy)
    assert grown[0] < GROWTH_BYTES
