"""How the frames of windows are put together: in one thread, and in pinned memory for a CUDA device."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nonlocal_video.errors import UsageError
from nonlocal_video.inference import feature_stream, sliding
from nonlocal_video.inference.preprocessing import ClipLoader
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.windows import WindowRequest, open_windows
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.decode import VideoReader

SPEC = InputSpec(32, 10.0, 160, 144, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TASKS = Path("/proc/self/task")


@pytest.fixture(scope="module")
def clip(colour_clip: Callable[[int], Path]) -> Path:
    return colour_clip(62)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads by /proc")
def test_reading_windows_starts_no_team_of_threads(clip: Path) -> None:
    """PyTorch gives every thread a team of its own, which stays as long as the thread."""

    def read() -> tuple[list[int], int]:
        torch.set_num_threads(4)  # of this thread
        with VideoReader() as reader, open_windows(reader, str(clip), SPEC, WindowRequest()) as windows:
            before = len(os.listdir(TASKS))
            counts = [len(os.listdir(TASKS)) - before for _ in windows.clips]
            torch.stack([torch.zeros(64, 64, 64)] * 16)
            return counts, len(os.listdir(TASKS)) - before

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as pool:
            counts, with_team = pool.submit(read).result()
    finally:
        torch.set_num_threads(threads)
    assert len(counts) > 1
    assert with_team > 0, "a team would be seen"
    assert max(counts) <= 0


@pytest.mark.parametrize("num_crops", [1, 10])
def test_pinned_windows_hold_the_frames_that_plain_ones_do(
    clip: Path, monkeypatch: pytest.MonkeyPatch, num_crops: int
) -> None:
    asked: list[bool] = []
    empty = torch.empty

    def noted(*size: int, pin_memory: bool = False, **options: Any) -> Tensor:
        asked.append(pin_memory)
        return empty(*size, **options)  # without a GPU there is no pinned memory

    request = WindowRequest(num_crops=num_crops)
    with VideoReader() as reader:
        with open_windows(reader, str(clip), SPEC, request) as windows:
            plain = list(windows.clips)
        (view,) = plain[1].views
        span = ClipRequest(start_seconds=view.start_seconds, end_seconds=view.end_seconds)
        alone = ClipLoader(reader).load(clip, SPEC, span, originals=None)
        monkeypatch.setattr(torch, "empty", noted)
        with open_windows(reader, str(clip), SPEC, request, pinned=True) as windows:
            pinned = list(windows.clips)
    assert asked == [True] * num_crops * len(plain)
    for one, other in zip(plain, pinned, strict=True):
        assert all(map(torch.equal, one.squares, other.squares))
    if num_crops == 1:
        assert torch.equal(plain[1].squares[0], alone.squares[0])


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda:0", True)])
def test_windows_for_a_cuda_device_are_pinned(
    recognizer: Recognizer, clip: Path, monkeypatch: pytest.MonkeyPatch, device: str, pinned: bool
) -> None:
    asked: list[bool] = []

    def opened(*_: object, pinned: bool) -> AbstractContextManager[Any]:
        asked.append(pinned)
        raise UsageError("enough")

    predictor: Any = SimpleNamespace(
        device=torch.device(device),
        new_reader=VideoReader,
        card=recognizer.card,
        network=recognizer.network,
    )
    monkeypatch.setattr(sliding, "open_windows", opened)
    monkeypatch.setattr(feature_stream, "open_windows", opened)
    with pytest.raises(UsageError, match="enough"):
        next(sliding.slide(predictor, clip, batch_size=1))
    with closing(feature_stream._in_order(predictor, [str(clip)], SPEC, WindowRequest(), 1, 1, nullcontext)) as events:
        _, error = next(events)
    assert isinstance(error, UsageError)
    assert asked == [pinned, pinned]
