"""The camera of a browser, without a browser: pictures in, answers out, within bounds."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fastapi
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nonlocal_video.app.live_routes import add_live_routes
from nonlocal_video.app.live_sessions import IDLE_SECONDS, LiveSessions
from nonlocal_video.app.turns import Turns
from nonlocal_video.errors import DeviceError, UsageError
from nonlocal_video.inference.frame_window import FrameWindow
from nonlocal_video.inference.live import LiveAnswers
from nonlocal_video.inference.recognizer import Recognizer

FRAMES = np.random.default_rng(1).integers(0, 256, (16, 6, 8, 3)).repeat(12, axis=1).repeat(12, axis=2).astype(np.uint8)


def jpeg(frame: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=90)
    return file.getvalue()


def body(frames: NDArray[np.uint8], first: int = 0) -> bytes:
    """Pictures at 10/s as the script sends them."""
    pictures = [jpeg(frame) for frame in frames]
    return b"".join(
        struct.pack("<dI", (first + number) / 10, len(picture)) + picture for number, picture in enumerate(pictures)
    )


@pytest.fixture
def sessions(recognizer: Recognizer) -> Iterator[LiveSessions]:
    sessions = LiveSessions({"tiny": recognizer}, Turns(4))
    yield sessions
    sessions.close()


@pytest.fixture
def client(sessions: LiveSessions) -> Iterator[TestClient]:
    app = fastapi.FastAPI()
    add_live_routes(app, sessions)
    with TestClient(app) as client:  # one event loop, as on a server
        yield client


def test_pictures_are_answered_like_the_same_frames(
    client: TestClient, sessions: LiveSessions, recognizer: Recognizer
) -> None:
    started = client.post("/live", json={"fast": False}).json()
    assert (started["window_seconds"], started["frames_per_second"], started["short_side"]) == (0.8, 10.0, 64)
    address = f"/live/{started['id']}"
    assert client.post(f"{address}/pictures", content=body(FRAMES[:5])).json() == {"held": 5}
    assert client.post(f"{address}/answer").json() == {"answer": None}, "too few for a window"
    client.post(f"{address}/pictures", content=body(FRAMES[5:9], first=5))
    first = client.post(f"{address}/answer").json()["answer"]
    assert client.post(f"{address}/answer").json() == {"answer": None}, "no picture came since"
    client.post(f"{address}/pictures", content=body(FRAMES[9:12], first=9))
    second = client.post(f"{address}/answer").json()["answer"]
    window, answers, expected = FrameWindow(recognizer.card.input, name="x"), LiveAnswers(recognizer), []
    for number, frame in enumerate(FRAMES[:12]):
        window.add(np.array(Image.open(io.BytesIO(jpeg(frame)))), number / 10)
        if number in (8, 11):
            clip = window.clip()
            assert clip is not None
            expected.append(answers.answer(clip).to_row())
    for found, row in zip((first, second), expected, strict=True):
        assert found["end_seconds"] == row["end_seconds"]
        for kind in ("top", "raw_top"):
            assert [one["label"] for one in found[kind]] == [one["label"] for one in row[kind]]
            assert [one["score"] for one in found[kind]] == pytest.approx([one["score"] for one in row[kind]], abs=1e-5)
        assert found["sure"] in ("very sure", "fairly sure", "a guess", "not sure")
    assert client.post(f"{address}/end").status_code == 200
    assert client.post(f"{address}/answer").status_code == 404
    assert len(sessions) == 0


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "invalid_argument"),
        (b"x", 422, "invalid_argument"),
        (struct.pack("<dI", 0.0, 100) + b"short", 422, "invalid_argument"),
        (struct.pack("<dI", float("nan"), 1) + b"x", 422, "invalid_argument"),
        (struct.pack("<dI", -1.0, 1) + b"x", 422, "invalid_argument"),
        (struct.pack("<dI", 0.0, 5) + b"x" * 5, 422, "corrupt"),
        ((struct.pack("<dI", 0.0, 1) + b"x") * 65, 413, "too_large"),
    ],
)
def test_what_is_no_picture_is_refused(client: TestClient, content: bytes, status: int, code: str) -> None:
    address = f"/live/{client.post('/live', json={}).json()['id']}/pictures"
    refused = client.post(address, content=content)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert client.post(address, content=body(FRAMES[:1])).status_code == 200, "the camera continues"


def test_cameras_are_bounded_and_forgotten(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nonlocal_video.app.live_sessions.MAX_CAMERAS", 2)
    clock = [0.0]
    sessions = LiveSessions({"tiny": recognizer}, Turns(4), now=lambda: clock[0])
    ids = [sessions.start(None, fast=True)["id"] for _ in range(2)]
    assert len({*ids}) == 2
    assert min(map(len, ids)) >= 20, "unguessable"
    with pytest.raises(Exception, match="2 cameras are watched"):
        sessions.start(None, fast=True)
    clock[0] = IDLE_SECONDS + 1
    sessions.start("tiny", fast=True)
    assert len(sessions) == 1
    with pytest.raises(Exception, match="not watched any more"):
        sessions.add(ids[0], b"")
    with (
        ThreadPoolExecutor(1) as pool,  # this thread may have the loop of the browser's tests
        pytest.raises(Exception, match="not watched any more"),
    ):
        pool.submit(asyncio.run, sessions.answer(ids[0])).result()
    with pytest.raises(UsageError, match="model = 'x' should be one of tiny"):
        sessions.start("x", fast=True)


def test_a_busy_server_says_so(client: TestClient, sessions: LiveSessions, monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = client.post("/live", json={}).json()
    client.post(f"/live/{started['id']}/pictures", content=body(FRAMES[:9]))
    monkeypatch.setattr(sessions.turns, "_max_waiting", 0)
    refused = client.post(f"/live/{started['id']}/answer")
    assert (refused.status_code, refused.json()["code"]) == (503, "busy")


def test_a_device_that_fails_as_pictures_go_there_is_said_and_known(
    client: TestClient, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, to = torch.device("meta"), Tensor.to

    def failing(tensor: Tensor, *given: Any, **options: Any) -> Tensor:
        if gpu in given:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        result: Tensor = to(tensor, *given, **options)
        return result

    monkeypatch.setattr(recognizer._engine.shared, "failed", None)
    monkeypatch.setattr(recognizer, "device", gpu)
    address = f"/live/{client.post('/live', json={'fast': False}).json()['id']}"
    client.post(f"{address}/pictures", content=body(FRAMES[:9]))
    monkeypatch.setattr(Tensor, "to", failing)
    answer = client.post(f"{address}/answer")
    assert answer.status_code == 503
    assert "Traceback" not in answer.text
    assert isinstance(recognizer.failed, DeviceError)
