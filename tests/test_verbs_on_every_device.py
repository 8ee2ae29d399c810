"""Timeline, features, a folder run and teaching on the CPU and on a GPU: the files hold arrays, nothing is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import nonlocal_video as nlv
from nonlocal_video.inference.feature_stream import stream_features
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.inference.preprocessing import _Array, _ArrayStream
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.inference.window_features import FeatureRequest, WindowFeatures
from nonlocal_video.inference.windows import WindowRequest
from nonlocal_video.video.decode import VideoReader

pytestmark = pytest.mark.slow

FRAMES_PER_SECOND = 10.0
CLOSE = 1e-4
"""Allowed difference of logits from the CPU's, as a part of the largest (DESIGN: float32 on every device)."""


class MemoryStream(_ArrayStream, Iterator[Any]):
    """Counterpart of `FrameStream`, which is its own iterator."""

    def __iter__(self) -> MemoryStream:
        self._chunks = super().__iter__()
        return self

    def __next__(self) -> Any:
        if not hasattr(self, "_chunks"):
            iter(self)
        return next(self._chunks)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six "videos" of 2.4 to 4 s and 64 x 48 pixels, in two folders: arrays that a changed `VideoReader` gives."""
    for number in range(6):
        path = tmp_path / "clips" / ("left", "right")[number % 2] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(number)
        patches = random.integers(0, 256, (24 + 3 * number, 6, 8, 3)).astype(np.uint8)
        with open(path, "wb") as file:
            np.save(file, np.repeat(np.repeat(patches, 8, axis=1), 8, axis=2))

    def clip(path: Any) -> _Array:
        return _Array(np.load(path), FRAMES_PER_SECOND)

    @contextmanager
    def stream(
        self: VideoReader, path: Any, times: Sequence[float], *, chunk_frames: int = 16, box: Any = None
    ) -> Iterator[MemoryStream]:
        given = clip(path).stream(times, chunk_frames=len(times), box=box)
        (chunk,) = given
        yield MemoryStream(given.info, chunk, given.frame_of_time, chunk_frames)

    monkeypatch.setattr(VideoReader, "probe", lambda self, path: clip(path).probe())
    monkeypatch.setattr(VideoReader, "stream", stream)
    return tmp_path / "clips"


def assert_close(found: Any, wanted: Sequence[NDArray[np.float32]]) -> None:
    """Compare arrays, and refuse answers that are all alike, among which a mix-up would pass."""
    ours, theirs = np.stack(found), np.stack(wanted)
    largest = np.abs(theirs).max()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= CLOSE * largest
    assert np.abs(np.diff(theirs, axis=0)).max(axis=tuple(range(1, theirs.ndim))).min() > 10 * CLOSE * largest


def of_windows(model: Path, clip: Path, starts: Any, ends: Any) -> list[Prediction]:
    """Each window by itself on the CPU."""
    with nlv.load(model, device="cpu", runtime="torch") as recognizer:
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        return [recognizer.classify(clip, start_seconds=start, end_seconds=end) for start, end in spans]


@pytest.mark.parametrize("stride", [0.3, 0.8])
def test_windows_of_a_timeline_are_those_of_the_cpu(
    all_devices: str, stride: float, folder: Path, tiny_model: Path
) -> None:
    clip = folder / "right" / "5.mp4"
    with nlv.load(tiny_model, device=all_devices, runtime="torch") as recognizer:
        found = recognizer.timeline(clip, stride_seconds=stride, batch_size=3, context="none")
    assert torch.device(found.device).type == all_devices
    alone = of_windows(tiny_model, clip, found.starts, found.ends)
    assert len(alone) > 3
    assert found.logits is not None
    assert_close(found.logits, [one.logits for one in alone if one.logits is not None])


@pytest.mark.parametrize("num_crops", [1, 10])
def test_features_of_two_files_are_those_of_the_cpu(
    all_devices: str, num_crops: int, folder: Path, tiny_model: Path
) -> None:
    request = FeatureRequest(WindowRequest(num_crops=num_crops))
    clips = [str(folder / "left" / "4.mp4"), str(folder / "right" / "5.mp4")]

    def features(device: str, workers: int, batch_size: int) -> list[WindowFeatures]:
        with (
            nlv.load(tiny_model, device=device, runtime="torch") as recognizer,
            closing(stream_features(recognizer, clips, request, workers=workers, batch_size=batch_size)) as found,
        ):
            return [result for _, result in found if isinstance(result, WindowFeatures)]

    found = features(all_devices, 2, 4)
    assert [len(one) for one in found] == [8, 9]
    for one, other in zip(found, features("cpu", 1, 1), strict=True):
        assert_close(one.features, list(other.features))
    if num_crops == 1:
        alone = of_windows(tiny_model, Path(clips[1]), found[1].starts, found[1].ends)
        assert_close(found[1].features, [one.features for one in alone if one.features is not None])


@pytest.mark.parametrize("views", ["1x1", "3x3"])
def test_a_folder_run_gives_the_rows_of_single_clips(
    all_devices: str, views: str, folder: Path, tiny_model: Path
) -> None:
    clips = [str(path) for path in sorted(folder.rglob("*.mp4"))]
    with nlv.load(tiny_model, device=all_devices, runtime="torch") as recognizer:
        request = ClipRequest(ViewCount.parse(views))
        outcomes = list(classify_files(recognizer, clips, request, workers=3, batch_size=4, device=recognizer.device))
    with nlv.load(tiny_model, device="cpu", runtime="torch") as recognizer:
        wanted = [recognizer.classify(clip, views=views).logits for clip in clips]
    assert [outcome.path for outcome in outcomes] == clips
    found = [outcome.logits for outcome in outcomes if isinstance(outcome, Prediction)]
    assert_close(found, [one for one in wanted if one is not None])


def test_a_taught_model_is_that_of_the_cpu(all_devices: str, folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    run = nlv.teach(folder, output=tmp_path / "here", model=tiny_model, device=all_devices, runtime="torch")
    other = nlv.teach(folder, output=tmp_path / "cpu", model=tiny_model, device="cpu", runtime="torch")
    assert run.report.counts == other.report.counts == {"left": 3, "right": 3}
    clips = sorted(folder.rglob("*.mp4"))
    with nlv.load(run, device=all_devices, runtime="torch") as here, nlv.load(other, device="cpu") as there:
        found = [here.classify(clip).scores for clip in clips]
        wanted = [there.classify(clip).scores for clip in clips]
    np.testing.assert_allclose(found, wanted, atol=1e-3)
