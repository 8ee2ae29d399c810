"""A checkpoint's own test protocol, written down once more: which frames, which pixels, what is averaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.transforms.v2 import functional

import nonlocal_video as nlv
from nonlocal_video.inference.preprocessing import ClipLoader, LoadedClip
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.inference.windows import plan_windows
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import build_network
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video
from nonlocal_video.zoo.catalogue import entry

pytestmark = pytest.mark.slow

NUM_FRAMES = 100


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames of 320 x 256 at 30 a second, each of its own colours; the short side needs no resize at 256."""
    path = tmp_path_factory.mktemp("protocol") / "clip.mp4"
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (NUM_FRAMES, 4, 5, 3), np.uint8)
    write_video(path, (frame.repeat(64, 0).repeat(64, 1) for frame in small), fps=30)
    return path


@pytest.fixture(scope="module")
def frames(clip: Path) -> Tensor:
    """(T, 3, 256, 320) uint8, as decoded."""
    with VideoReader() as reader:
        decoded = reader.read(clip, [(i + 0.5) / 30 for i in range(NUM_FRAMES)]).frames_thwc
    assert decoded.shape == (NUM_FRAMES, 256, 320, 3)
    return torch.from_numpy(decoded).permute(0, 3, 1, 2)


def thin(name: str) -> tuple[Video3DResNet, ModelCard]:
    """The catalogue's network at an eighth of its width, untrained, with logits that differ between clips."""
    row = entry(name)
    card = replace(row, config={**row.config, "width": 8}).card
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build_network(card).eval()
        assert isinstance(network, Video3DResNet)
        with torch.no_grad():  # logits of different clips, some units apart: no class has all the probability
            features = network.extract_features(torch.randn(1, 3, 16, 56, 56), ["stage4"])["stage4"]
            network.fc.weight.normal_(std=3 / float(features.mean((2, 3, 4)).norm()))
    return network, card


def normalised(clip_tchw: Tensor, mean: float, std: float) -> Tensor:
    return ((clip_tchw.float() / 255 - mean) / std).permute(1, 0, 2, 3)[None]


def test_pyslowfasts_protocol(clip: Path, frames: Tensor) -> None:
    """Clips at k/2 of what is free, linspace within, three squares of 256, softmax of every 7 x 7 window averaged."""
    network, card = thin("i3d-nl-r50-8x8-k400-pyslowfast")
    probabilities = []
    with torch.inference_mode():
        for k in range(2):
            start = (NUM_FRAMES - 64) * k / 2
            indices = np.linspace(start, start + 63, 8).astype(int)
            for left in (0, 32, 64):
                square = frames[indices][:, :, :, left : left + 256]
                features = network.extract_features(normalised(square, 0.45, 0.225), ["stage4"])["stage4"]
                assert features.shape[2:] == (4, 8, 8)
                for y in range(2):
                    for x in range(2):
                        pooled = features[:, :, :, y : y + 7, x : x + 7].mean((2, 3, 4))
                        probabilities.append(network.fc(pooled).softmax(1))
    expected = torch.cat(probabilities).mean(0)
    with nlv.Recognizer(network, card, device="cpu") as recognizer:
        scores = recognizer.classify(clip, views="2x3").scores
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-3, atol=1e-6)


def test_video_nonlocal_nets_protocol(clip: Path, frames: Tensor) -> None:
    """Clips at halves of the video, the second one over its end and on at its start; else as PySlowFast."""
    network, card = thin("i3d-nl-r50-8x8-k400-caffe2")
    probabilities = []
    with torch.inference_mode():
        for start in (0, 50):
            indices = (start + 8 * np.arange(8)) % NUM_FRAMES
            assert (indices < start).any() == (start == 50)
            for left in (0, 32, 64):
                square = frames[indices][:, :, :, left : left + 256].float().permute(1, 0, 2, 3)[None]
                features = network.extract_features((square - 114.75) / 57.375, ["stage4"])["stage4"]
                windows = features.unfold(3, 7, 1).unfold(4, 7, 1)[0].mean((1, 4, 5))  # (C, 2, 2)
                probabilities.append(network.fc(windows.flatten(1).T).softmax(1).mean(0))
    expected = torch.stack(probabilities).mean(0)
    with nlv.Recognizer(network, card, device="cpu") as recognizer:
        prediction = recognizer.classify(clip, views="2x3")
    np.testing.assert_allclose(prediction.scores, expected.numpy(), rtol=1e-3, atol=1e-6)
    assert [view.start_seconds for view in prediction.views] == pytest.approx([0, 50 / 30])


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("i3d-nl-dot-r50-32x2-k400-mmaction2", (0, NUM_FRAMES - 63)),  # to the last frame
        ("i3d-nl-dot-r50-32x2-k400-mmaction2-v0", (9, 27)),  # (k + 1/2) / 2 of 100 - 64 + 1 frames
        ("i3d-dense-r50-32x2-k400-mmaction2", (0, NUM_FRAMES - 64)),
    ],
)
def test_mmaction2s_protocol(clip: Path, frames: Tensor, name: str, starts: tuple[int, int]) -> None:
    """Every second frame of the clip, the mean of the softmax of whole maps."""
    network, card = thin(name)
    mean, std = (
        torch.tensor(values).view(3, 1, 1, 1) for values in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    )
    probabilities = []
    with torch.inference_mode():
        for start in starts:
            for left in (0, 32, 64):
                square = frames[start : start + 63 : 2][:, :, :, left : left + 256].permute(1, 0, 2, 3)
                assert square.shape[1] == 32
                probabilities.append(network(((square.float() - mean) / std)[None]).softmax(1))
    expected = torch.cat(probabilities).mean(0)
    with nlv.Recognizer(network, card, device="cpu") as recognizer:
        scores = recognizer.classify(clip, views="2x3").scores
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-3, atol=1e-6)


def test_torchvisions_protocol(clip: Path, frames: Tensor) -> None:
    """16 of the 50 frames at 15 a second, begun at five of them from 0 to 34, through torchvision's own preset."""
    network, card = thin("r3d-18-k400-torchvision")
    preset = torchvision.models.video.R3D_18_Weights.KINETICS400_V1.transforms()
    with torch.inference_mode():
        probabilities = [
            network(preset(frames[start : start + 32 : 2])[None]).softmax(1) for start in (0, 16, 34, 50, 68)
        ]
    expected = torch.cat(probabilities).mean(0)
    with nlv.Recognizer(network, card, device="cpu") as recognizer:
        scores = recognizer.classify(clip, views="5x1").scores
        other = recognizer.classify(clip, views="1x1").scores
    # the preset resizes in float32, ours to whole levels of 255
    np.testing.assert_allclose(scores, expected.numpy(), rtol=0.05, atol=1e-5)
    assert (np.abs(other - scores) / scores).max() > 0.1


# ---- Clips and frames of sizes at which the projects differ: which frames and pixels, without a network

PYSLOWFAST = "i3d-nl-r50-8x8-k400-pyslowfast"
CAFFE2 = "i3d-nl-r50-8x8-k400-caffe2"
MMACTION2 = "i3d-nl-dot-r50-32x2-k400-mmaction2"
PYTORCHVIDEO = "i3d-r50-8x8-k400-pytorchvideo"


def load(name: str, frames: Tensor, *, num_clips: int = 1, num_crops: int = 1) -> LoadedClip:
    """Input of the catalogue's network for uint8 (T, H, W, 3), 30 a second."""
    request = ClipRequest(ViewCount(num_clips, num_crops), frames_per_second=30)
    with VideoReader() as reader:
        return ClipLoader(reader).load(frames.numpy(), entry(name).card.input, request, originals=None)


@pytest.mark.parametrize(
    ("name", "lefts"),
    [(PYSLOWFAST, [0, 3, 5]), (PYTORCHVIDEO, [0, 3, 5]), (CAFFE2, [0, 2, 4]), (MMACTION2, [0, 2, 4])],
)
def test_squares_of_frames_that_leave_five_pixels_free(name: str, lefts: list[int]) -> None:
    """ceil(5 / 2) and all 5, or 5 // 2 once and twice."""
    one = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 256, 261, 3), np.uint8))
    loaded = load(name, one, num_crops=3)
    for crop, left in enumerate(lefts):
        assert torch.equal(loaded.crop_frames(crop), one[:, :, left : left + 256])
    assert torch.equal(load(name, one).crop_frames(0), loaded.crop_frames(1))


@pytest.mark.parametrize(
    ("name", "width", "left"),
    [(PYSLOWFAST, 455, 100), (PYTORCHVIDEO, 455, 100), (CAFFE2, 455, 99), (MMACTION2, 456, 100)],
)
def test_a_longer_side_of_455_and_eight_tenths(name: str, width: int, left: int) -> None:
    """641 x 256 / 360 = 455.82; the centre of 199 or 200 free pixels."""
    one = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (1, 360, 641, 3), np.uint8))
    resized = functional.resize(one.permute(0, 3, 1, 2), [256, width], antialias=False)
    square = load(name, one).crop_frames(0)
    assert torch.equal(square, resized[:, :, :, left : left + 256].permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("name", "indices", "filled"),
    [
        (PYSLOWFAST, [[0, 9, 18, 19, 19, 19, 19, 19]] * 2, "held at its last frame"),
        (PYTORCHVIDEO, [[0, 2, 5, 8, 10, 13, 16, 19]] * 2, "spread over it"),
        (CAFFE2, [[0, 8, 16, 4, 12, 0, 8, 16], [10, 18, 6, 14, 2, 10, 18, 6]], "looped"),
        (MMACTION2, [[*range(0, 20, 2)] * 3 + [0, 2]] * 2, "looped"),
    ],
)
def test_twenty_frames_where_a_view_spans_sixty_four(name: str, indices: list[list[int]], filled: str) -> None:
    """linspace(0, 63) held at 19, linspace(0, 19), every eighth frame modulo 20 from 0 and 10, every second one."""
    grey = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 256, 256, 3).contiguous()
    loaded = load(name, grey, num_clips=2)
    shown = [loaded.frames[torch.from_numpy(rows), 0, 0, 0].tolist() for rows in loaded.frame_of_time]
    assert shown == indices
    assert loaded.notes == (f"The clip (0.67 s) is shorter than a view (2.13 s) and was {filled}.",)
    plan = plan_windows(loaded.info, entry(name).card.input)
    assert plan.notes == (f"The video (0.67 s) is shorter than a window (2.13 s) and was {filled}.",)
    assert np.floor(plan.times * 30).astype(int).tolist() == indices[:1]
