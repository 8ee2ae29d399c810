"""Frames that reach the network: only those that it looks at, each once, and beside its work."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nonlocal_video as nlv
from nonlocal_video.errors import DeviceError
from nonlocal_video.inference import feeding, folder
from nonlocal_video.inference import preprocessing as loading
from nonlocal_video.inference.crop_layout import CropLayout
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.prediction import Failure, Prediction
from nonlocal_video.inference.preprocessing import ClipLoader, LoadedClip
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.upload import on_device
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video import _wire
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.region import Region
from nonlocal_video.video.transforms import cut, resize_region, spatial_views

SPEC = InputSpec(num_frames=4, frames_per_second=8.0, short_side=40, crop=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
TASKS = Path("/proc/self/task")
REGION = Region(0.5, 0.25, 1.0, 0.75)


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Iterator[nlv.Recognizer]:
    with nlv.load(tiny_model, device="cpu") as loaded:
        yield loaded


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each picture that comes through a pipe."""
    sizes: list[int] = []
    read = _wire.read_exactly

    def counted(pipe: Any, view: memoryview) -> None:
        if len(view) > 1000:
            sizes.append(len(view))
        read(pipe, view)

    monkeypatch.setattr(_wire, "read_exactly", counted)
    return sizes


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.slow
def test_a_part_of_the_frames_is_that_part(clip_folder: Path, received: list[int], decoder: Any) -> None:
    path, times = clip_folder / "a.mp4", [0.0, 0.3, 0.1]
    with VideoReader(decoder=decoder) as reader:
        whole = reader.read(path, times)
        height, width = whole.frames_thwc.shape[1:3]
        received.clear()
        box = (3, 5, height - 4, width // 2)
        with reader.stream(path, times, chunk_frames=2, box=box) as stream:
            part = np.concatenate([chunk.frames_thwc for chunk in stream])
        np.testing.assert_array_equal(part, whole.frames_thwc[:, 3 : height - 4, 5 : width // 2])
        assert received == [3 * (height - 7) * (width // 2 - 5)] * 3
        for bad in ((0, 0, height + 1, width), (4, 0, 4, width), (-1, 0, 2, 2)):
            with pytest.raises(nlv.UsageError, match="part of this video's frames"):
                reader.stream(path, times, box=bad)
        assert len(reader.read(path, times).frames_thwc) == 3, "the reader serves on"


@pytest.mark.parametrize("source", ["file", "array"])
@pytest.mark.parametrize("region", [None, REGION])
@pytest.mark.parametrize("antialias", [True, False])
def test_squares_are_cut_out_of_whole_frames_bit_for_bit(
    clip_folder: Path, received: list[int], source: str, region: Region | None, antialias: bool
) -> None:
    spec = replace(SPEC, antialias=antialias)
    path = clip_folder / "a.mp4"
    request = ClipRequest(ViewCount(2, 3), region=region)
    with VideoReader() as reader:
        every = np.arange(reader.probe(path).num_frames) / reader.probe(path).fps
        given: Any = path if source == "file" else reader.read(path, every).frames_thwc
        received.clear()
        clip = ClipLoader(reader).load(given, spec, request, originals=None)
        pixels = sum(received) // 3
        drawn: list[Any] = []
        kept = ClipLoader(reader).load(given, spec, request, originals=drawn)
    whole = torch.from_numpy(np.stack(drawn))
    height, width = whole.shape[1:3]
    assert len(whole) == len(clip.seconds)
    crops = spatial_views(height, width, short_side=40, crop=32, num_crops=3, region=region)
    assert clip.crops == crops
    for number, crop in enumerate(crops):
        square, same = clip.crop_frames(number), kept.crop_frames(number)
        for frame, got in zip(whole, square, strict=True):  # one by one: as many at a time as fit make no difference
            resized = resize_region(frame[None], crop, antialias=antialias)
            assert torch.equal(cut(resized, crop)[0], got)
        assert torch.equal(square, same)
    if source == "file":
        share = 0.25 if region else 1.0
        assert pixels == pytest.approx(share * len(whole) * height * width, rel=0.05)


def test_large_frames_come_in_small_chunks() -> None:
    info = VideoInfo("mp4", "h264", 1920, 1080, 0, 99, 25.0, 0.0, 4.0, False, "pyav")
    place = spatial_views(1080, 1920, short_side=256, crop=256)[0]
    assert 6e6 < 3 * 1920 * 1080 * loading._chunk_frames(info, place) <= 32e6  # what malloc keeps for the next


def test_logits_are_those_of_views_made_one_by_one(recognizer: nlv.Recognizer, clip_folder: Path) -> None:
    """Bit for bit as when each view was gathered, normalised with tensors and put into the batch on its own."""
    spec = recognizer.card.view()
    asked: list[Tensor] = []
    forward = recognizer._engine.folded.forward

    def watched(inputs: Tensor) -> Tensor:
        logits: Tensor = forward(inputs)
        asked.append(logits.clone())
        return logits

    with recognizer.new_reader() as reader, pytest.MonkeyPatch.context() as patch:
        clip = ClipLoader(reader).load(clip_folder / "a.mp4", spec, ClipRequest(ViewCount(3, 3)), originals=None)
        patch.setattr(recognizer._engine.folded, "forward", watched)
        recognizer.predict([clip], batch_size=4)
    views = []
    for view in range(3):
        for crop in range(3):
            frames = clip.crop_frames(crop)[torch.from_numpy(clip.frame_of_time[view])]
            std = torch.tensor(spec.std).view(3, 1, 1, 1)
            shift = -torch.tensor(spec.mean).view(3, 1, 1, 1) / std
            floats = frames.permute(3, 0, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
            views.append(floats.mul_(1 / (255 * std)).add_(shift)[None])
    with torch.inference_mode():
        expected = [
            forward(torch.cat(views[start : start + 4]).contiguous(memory_format=torch.channels_last_3d))
            for start in (0, 4, 8)
        ]
    assert [len(logits) for logits in asked] == [4, 4, 1]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(asked, expected, strict=True))


def clip_of(recognizer: nlv.Recognizer, path: Path) -> LoadedClip:
    with recognizer.new_reader() as reader:
        return ClipLoader(reader).load(path, recognizer.card.view(), ClipRequest(ViewCount(3, 3)), originals=None)


def test_each_distinct_frame_is_taken_to_the_device_once(
    recognizer: nlv.Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, device = clip_of(recognizer, clip_folder / "a.mp4"), torch.device("meta")
    moved: list[tuple[torch.dtype, int, bool]] = []
    to = Tensor.to

    def counted(self: Tensor, *given: Any, **options: Any) -> Tensor:
        result: Tensor = to(self, *given, **options)
        if result.device != self.device:
            moved.append((self.dtype, self.numel(), options.get("non_blocking", False)))
        return result

    monkeypatch.setattr(Tensor, "to", counted)
    there = on_device(clip, device)
    assert on_device(there, device) is there
    views = [there.network_input(view, crop, device=device) for view in range(3) for crop in range(3)]
    assert all(view.device == device and view.shape == (1, 3, 8, 48, 48) for view in views)
    pictures = [(numel, beside) for dtype, numel, beside in moved if dtype == torch.uint8]
    assert clip.frames.shape == (len(clip.seconds), 48, 85, 3), "all three crops of frames of 64 x 85"
    assert pictures == [(clip.frames.numel(), True)]
    assert {numel for dtype, numel, _ in moved if dtype != torch.uint8} == {8}, "the numbers of a view's frames"


@pytest.mark.parametrize(("device", "pinned"), [("cuda:0", True), ("cpu", False)])
def test_frames_for_a_gpu_wait_in_pinned_memory(
    recognizer: nlv.Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, pinned: bool
) -> None:
    """From other memory the copy would hold the thread that asks for it."""
    rooms: list[bool] = []
    empty = torch.empty

    def watched(*size: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        if len(size) == 4 and options.get("dtype") == torch.uint8:
            rooms.append(pin_memory)
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", watched)
    monkeypatch.setattr(folder, "on_device", lambda clip, _: clip)
    files, request = [str(clip_folder / "a.mp4")], ClipRequest()
    found = classify_files(recognizer, files, request, workers=1, batch_size=1, device=torch.device(device))
    assert [type(outcome) for outcome in found] == [Prediction]
    assert rooms == [pinned]


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads by /proc")
def test_loading_clips_starts_no_team_of_threads(tmp_path: Path) -> None:
    """PyTorch gives every thread a team of its own: with 16 processes that decode, 16 teams."""

    clip, spec = tmp_path / "large.mp4", replace(SPEC, num_frames=16, short_side=256, crop=224)
    write_video(clip, (np.full((480, 640, 3), 12 * number, np.uint8) for number in range(20)), fps=10)

    def load() -> tuple[int, int]:
        torch.set_num_threads(4)  # of this thread
        with VideoReader() as reader:
            reader.probe(clip)  # starts the process and the thread that watches it
            before = len(list(TASKS.iterdir()))
            ClipLoader(reader).load(clip, spec, ClipRequest(ViewCount(1, 3)), originals=None)
            loaded = len(list(TASKS.iterdir())) - before
            torch.stack([torch.zeros(64, 64, 64)] * 16)
            return loaded, len(list(TASKS.iterdir())) - before

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as pool:
            loaded, with_team = pool.submit(load).result()
    finally:
        torch.set_num_threads(threads)
    assert with_team > 0, "a team would be seen"
    assert loaded <= 0


def test_a_clip_for_which_the_device_has_no_room_stays(
    recognizer: nlv.Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip_of(recognizer, clip_folder / "a.mp4")

    def failing(error: Exception) -> Any:
        def to(self: Tensor, *given: Any, **options: Any) -> Tensor:
            raise error

        return to

    for error, expected in (
        (torch.OutOfMemoryError("CUDA out of memory."), None),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), DeviceError),
        (RuntimeError("another"), RuntimeError),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Tensor, "to", failing(error))
            if expected is None:
                assert on_device(clip, torch.device("meta")) is clip
            else:
                with pytest.raises(expected):
                    on_device(clip, torch.device("meta"))


def test_the_network_has_its_next_group_while_a_row_is_written(
    recognizer: nlv.Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, started = recognizer.predict, [threading.Event() for _ in range(4)]

    def watched(clips: Sequence[LoadedClip], **options: int) -> list[Prediction]:
        next(event for event in started if not event.is_set()).set()
        return predict(clips, **options)

    monkeypatch.setattr(recognizer, "predict", watched)
    outcomes = classify_files(recognizer, [str(clip_folder / "a.mp4")] * 4, ClipRequest())
    next(outcomes)
    assert started[1].wait(30), "nobody has asked for the second row yet"
    assert len(list(outcomes)) == 3


def test_clips_of_many_views_do_not_wait_for_each_other(
    recognizer: nlv.Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, sizes = recognizer.predict, []

    def watched(clips: Sequence[LoadedClip], **options: int) -> list[Prediction]:
        sizes.append((len(clips), options["batch_size"]))
        return predict(clips, **options)

    monkeypatch.setattr(recognizer, "predict", watched)
    files = [str(clip_folder / "a.mp4")] * 4
    outcomes = list(classify_files(recognizer, files, ClipRequest(ViewCount(2, 3)), batch_size=12))
    assert sizes == [(2, 12), (2, 12)]
    assert [type(outcome) for outcome in outcomes] == [Prediction] * 4


@pytest.mark.parametrize(
    ("error", "code"), [(MemoryError(), "out_of_memory"), (RuntimeError("CUDA error: out of memory"), "out_of_memory")]
)
def test_no_memory_for_the_frames_is_that_files_row(
    recognizer: nlv.Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    room = ClipLoader._room
    asked: list[CropLayout] = []

    def full(self: ClipLoader, num_frames: int, layout: CropLayout) -> Tensor:
        asked.append(layout)
        if len(asked) == 1:
            raise error
        return room(self, num_frames, layout)

    monkeypatch.setattr(ClipLoader, "_room", full)
    first, second = classify_files(recognizer, [str(clip_folder / "a.mp4")] * 2, ClipRequest())
    assert isinstance(first, Failure)
    assert first.error.code == code
    assert "a.mp4" in first.error.message
    assert isinstance(second, Prediction)


def test_a_device_that_fails_while_a_clip_is_taken_there_ends_the_run(
    recognizer: nlv.Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(self: ClipLoader, num_frames: int, layout: CropLayout) -> Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(ClipLoader, "_room", dying)
    monkeypatch.setattr(recognizer._engine.shared, "failed", None)  # put back at the end: others use it, too
    with pytest.raises(DeviceError, match="illegal memory access"):
        list(classify_files(recognizer, [str(clip_folder / "a.mp4")] * 2, ClipRequest()))
    assert isinstance(recognizer.failed, DeviceError)  # so that the server's /healthz says it


def test_no_decoding_process_outlives_a_run_that_is_closed(
    recognizer: nlv.Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[VideoReader] = []
    new_reader = recognizer.new_reader
    monkeypatch.setattr(recognizer, "new_reader", lambda: readers.append(new_reader()) or readers[-1])
    outcomes = classify_files(recognizer, [str(clip_folder / "a.mp4")] * 50, ClipRequest(), workers=3, batch_size=4)
    next(outcomes)
    outcomes.close()
    assert len(readers) == 3
    assert [reader._process for reader in readers] == [None] * 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("decode", "network"))]


@pytest.mark.parametrize(
    ("free_gib", "frames", "crop", "batch"),
    [
        (130, 64, 224, 32),  # the default model on a card of 140 GB
        (22, 64, 224, 8),
        (6, 64, 224, 2),
        (0.5, 64, 224, 1),  # too little for one: the engine says so when it does not fit
        (130, 8, 224, 32),
        (130, 64, 256, 16),  # 32 would make a feature map of 2^31 elements
    ],
)
def test_a_gpu_gets_as_many_views_as_its_memory_holds(
    monkeypatch: pytest.MonkeyPatch, free_gib: float, frames: int, crop: int, batch: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free_gib * 2**30), 2**40))
    spec = replace(SPEC, num_frames=frames, crop=crop, short_side=crop)
    assert feeding.default_batch_size(torch.device("cuda", 0), spec) == batch
    assert feeding.default_batch_size(torch.device("cpu"), spec) == 1


@pytest.mark.parametrize(("cores", "gpu", "cpu"), [(1, 1, 1), (2, 2, 1), (8, 8, 2), (64, 16, 16)])
def test_a_gpu_gets_a_decoding_process_a_core(monkeypatch: pytest.MonkeyPatch, cores: int, gpu: int, cpu: int) -> None:
    monkeypatch.setattr(feeding, "cores", lambda: cores)
    assert feeding.default_workers(torch.device("cuda", 1)) == gpu
    assert feeding.default_workers(torch.device("cpu")) == cpu


def test_what_the_user_says_goes_before_the_defaults(
    recognizer: nlv.Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "default_workers", lambda device: 3)
    monkeypatch.setattr(folder, "default_batch_size", lambda device, spec: 2)
    predict, new_reader, sizes, readers = recognizer.predict, recognizer.new_reader, [], []

    def watched(clips: Sequence[LoadedClip], **options: int) -> list[Prediction]:
        sizes.append(options["batch_size"])
        return predict(clips, **options)

    monkeypatch.setattr(recognizer, "predict", watched)
    monkeypatch.setattr(recognizer, "new_reader", lambda: readers.append(1) or new_reader())
    files = [str(clip_folder / "a.mp4")] * 2
    list(classify_files(recognizer, files, ClipRequest()))
    assert (sizes, len(readers)) == ([2], 3)
    list(classify_files(recognizer, files, ClipRequest(), workers=1, batch_size=1))
    assert (sizes, len(readers)) == ([2, 1, 1], 4)
    assert len(recognizer.classify_folder(clip_folder, workers=2)) == 4
    assert len(readers) == 6
