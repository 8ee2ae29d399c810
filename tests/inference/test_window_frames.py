"""Frames of windows are put together in one thread, and each is copied to the device once."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nonlocal_video.errors import DeviceError
from nonlocal_video.inference.feature_stream import stream_features
from nonlocal_video.inference.frame_window import FrameWindow
from nonlocal_video.inference.live import LiveAnswers
from nonlocal_video.inference.load import load
from nonlocal_video.inference.preprocessing import ClipLoader
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.window_features import FeatureRequest, WindowFeatures
from nonlocal_video.inference.windows import WindowRequest, open_windows
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.decode import VideoReader

SPEC = InputSpec(32, 10.0, 160, 144, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TASKS = Path("/proc/self/task")
CPU, META, CUDA = torch.device("cpu"), torch.device("meta"), torch.device("cuda", 0)
NUM_FRAMES = 62


@pytest.fixture(scope="module")
def recognizer(unsure_model: Path) -> Iterator[Recognizer]:
    """The unsure model without compilation, which a busy machine may begin between two answers of a test."""
    with load(unsure_model, device="cpu", runtime="torch") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clip(colour_clip: Callable[[int], Path]) -> Path:
    return colour_clip(NUM_FRAMES)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads by /proc")
def test_reading_windows_starts_no_team_of_threads(clip: Path) -> None:
    """PyTorch gives every thread a team of its own, which stays as long as the thread."""

    def read() -> tuple[list[int], int]:
        torch.set_num_threads(4)  # of this thread
        with VideoReader() as reader, open_windows(reader, str(clip), SPEC, WindowRequest(), device=CPU) as windows:
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


class PretendedGpu:
    """A GPU whose memory is the CPU's; notes the frames that are copied there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._copies: list[weakref.ref[Tensor]] = []
        self.num_pinned = 0
        """Number of frames that were put into pinned memory."""
        to, empty = Tensor.to, torch.empty

        def copied(tensor: Tensor, *given: Any, **options: Any) -> Tensor:
            if not given or given[0] != CUDA:
                result: Tensor = to(tensor, *given, **options)
                return result
            assert options == {"non_blocking": True}
            assert tensor.ndim == 3
            copy = tensor.clone()
            self._copies.append(weakref.ref(copy))
            return copy

        def room(*size: int, pin_memory: bool = False, **options: Any) -> Tensor:
            self.num_pinned += size[0] if pin_memory else 0
            return empty(*size, **options)

        monkeypatch.setattr(Tensor, "to", copied)
        monkeypatch.setattr(torch, "empty", room)

    @property
    def num_copied(self) -> int:
        """Number of frames that were copied to the device."""
        return len(self._copies)

    @property
    def num_held(self) -> int:
        """Number of these that are still there."""
        return sum(copy() is not None for copy in self._copies)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> PretendedGpu:
    return PretendedGpu(monkeypatch)


@pytest.mark.parametrize(
    ("num_crops", "num_frames", "stride", "most_held"),
    [
        (1, 32, 0.3, 32),
        (10, 32, 2.0, 32),
        (1, 16, 0.3, 32),  # every second frame of a window, which shows those that the one before it has left out
    ],
)
def test_each_frame_is_copied_once_and_windows_are_those_of_the_cpu(
    clip: Path, gpu: PretendedGpu, num_crops: int, num_frames: int, stride: float, most_held: int
) -> None:
    spec = replace(SPEC, num_frames=num_frames, frames_per_second=num_frames / 3.2)
    request = WindowRequest(num_crops=num_crops, stride_seconds=stride)
    with VideoReader() as reader:
        with open_windows(reader, str(clip), spec, request, device=CPU) as windows:
            expected = list(windows.clips)
        with open_windows(reader, str(clip), spec, request, device=CUDA) as windows:
            found, held = [], []
            for one in windows.clips:
                found.append(one)
                held.append(gpu.num_held)
        (view,) = expected[1].views
        span = ClipRequest(start_seconds=view.start_seconds, end_seconds=view.end_seconds)
        alone = ClipLoader(reader).load(clip, spec, span, originals=None)
    distinct = set(np.concatenate([one.seconds for one in expected]))
    assert gpu.num_copied == gpu.num_pinned == len(distinct) < sum(len(one.seconds) for one in expected)
    assert max(held) <= most_held
    assert gpu.num_held == 0
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.frames, other.frames)
    assert torch.equal(expected[1].crop_frames(num_crops // 2 - 1 if num_crops > 1 else 0), alone.crop_frames(0))


def timeline(recognizer: Recognizer, clip: Path) -> list[Any]:
    return [recognizer.timeline(clip, batch_size=3).logits]


def watched(recognizer: Recognizer, clip: Path) -> list[Any]:
    return [answer.raw_scores for answer in recognizer.watch(clip, every_seconds=0.25)]


def from_a_camera(recognizer: Recognizer, clip: Path) -> list[Any]:
    """Answers for the frames of a clip as they come; an answer after each third one."""
    window = FrameWindow(recognizer.card.input, name="camera", device=recognizer.device)
    answers, found = LiveAnswers(recognizer), []
    with VideoReader() as reader:
        frames = reader.read(clip, np.arange(NUM_FRAMES) / 10)
    for number, frame in enumerate(frames.frames_thwc):
        window.add(frame, number / 10)
        if number % 3 == 1 and (loaded := window.clip()) is not None:
            found.append(answers.answer(loaded).raw_scores)
    assert len(found) > 10
    return found


def features(recognizer: Recognizer, clip: Path, num_crops: int = 1) -> list[Any]:
    request = FeatureRequest(WindowRequest(num_crops=num_crops))
    with closing(stream_features(recognizer, [str(clip)], request, workers=1, batch_size=3)) as found:
        ((_, result),) = list(found)
    assert isinstance(result, WindowFeatures)
    return [result.logits, result.features]


def features_of_ten_crops(recognizer: Recognizer, clip: Path) -> list[Any]:
    return features(recognizer, clip, num_crops=10)


@pytest.mark.parametrize(
    "answer", [timeline, watched, from_a_camera, features, pytest.param(features_of_ten_crops, marks=pytest.mark.slow)]
)
def test_every_frame_of_a_video_goes_to_the_device_once(
    recognizer: Recognizer,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[Recognizer, Path], list[Any]],
) -> None:
    expected = answer(recognizer, clip)
    gpu = PretendedGpu(monkeypatch)
    monkeypatch.setattr(recognizer, "device", CUDA)
    found = answer(recognizer, clip)
    assert gpu.num_copied == NUM_FRAMES
    assert [one.tobytes() for one in found] == [one.tobytes() for one in expected]


def test_windows_stay_on_the_cpu_while_the_device_is_full(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to, full, copied = Tensor.to, [False], 0

    def limited(tensor: Tensor, *given: Any, **options: Any) -> Tensor:
        nonlocal copied
        if META in given and full[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        copied += META in given
        result: Tensor = to(tensor, *given, **options)
        return result

    request = WindowRequest(stride_seconds=1.0)
    with VideoReader() as reader:
        with open_windows(reader, str(clip), SPEC, request, device=CPU) as windows:
            expected = list(windows.clips)
        monkeypatch.setattr(Tensor, "to", limited)
        found = []
        with open_windows(reader, str(clip), SPEC, request, device=META) as windows:
            for full[0] in (False, True, False, False):
                found.append(next(windows.clips))
            assert next(windows.clips, None) is None
    assert [one.frames.device.type for one in found] == ["meta", "cpu", "meta", "meta"]
    assert torch.equal(found[1].frames, expected[1].frames)
    assert [one.frames.shape for one in found] == [one.frames.shape for one in expected]
    assert copied == NUM_FRAMES


def test_a_device_that_fails_ends_the_windows(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(tensor: Tensor, *given: Any, **options: Any) -> Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with (
        VideoReader() as reader,
        open_windows(reader, str(clip), SPEC, WindowRequest(), device=META) as windows,
        monkeypatch.context() as patch,
    ):
        patch.setattr(Tensor, "to", failing)
        with pytest.raises(DeviceError, match="illegal memory access"):
            next(windows.clips)


@pytest.mark.parametrize("answer", [timeline, watched, features])
def test_a_device_that_fails_at_a_copy_is_known_to_have_failed(
    recognizer: Recognizer, clip: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Recognizer, Path], list[Any]]
) -> None:
    """Frames are copied ahead of the network, outside its lock; the server's health check asks the network."""
    to = Tensor.to

    def failing(tensor: Tensor, *given: Any, **options: Any) -> Tensor:
        if META in given:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        result: Tensor = to(tensor, *given, **options)
        return result

    monkeypatch.setattr(recognizer._engine.shared, "failed", None)
    monkeypatch.setattr(recognizer, "device", META)
    monkeypatch.setattr(Tensor, "to", failing)
    with pytest.raises(DeviceError, match="illegal memory access"):
        answer(recognizer, clip)
    assert isinstance(recognizer.failed, DeviceError)
