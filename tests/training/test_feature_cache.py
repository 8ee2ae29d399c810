"""Features of a frozen part: computed once a view, resumed after a kill, and equal to those computed anew."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_parts import MemoryClips, SameClips, fabric, run, tiny_card, tiny_network, training, wake_blocks
from torch import Tensor

from nonlocal_video.errors import OutputError, UsageError, VideoError
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.feature_cache import FeatureCache, check_room, feature_shape, frozen_part
from nonlocal_video.training.loading import TrainingData
from nonlocal_video.training.metrics import read_metrics
from nonlocal_video.training.objective import Batch

CPU = torch.device("cpu")
SHAPE = (32, 2, 2, 2)


class TwoViews(MemoryClips):
    """Epochs see two views in turn."""

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        return super().view(index, epoch % 2)


@pytest.fixture
def network() -> Video3DResNet:
    return wake_blocks(tiny_network(tiny_card(blocks=True)))


def kept_of(
    network: Video3DResNet, data: TrainingData, folder: Path, *, views: int, layer: str = "layer3"
) -> FeatureCache:
    shape = feature_shape(network, layer, (3, 4, 32, 32), CPU)
    kept = FeatureCache(data, folder, num_views=views, shape=shape)
    kept.compute(frozen_part(network, layer, CPU), fabric(), batch_size=3, workers=0)
    return kept


def test_every_view_is_what_the_frozen_part_makes_of_it(network: Video3DResNet, tmp_path: Path) -> None:
    data = MemoryClips(7)
    assert feature_shape(network, "layer3", (3, 4, 32, 32), CPU) == SHAPE
    kept = kept_of(network, data, tmp_path, views=2)
    assert data.closed
    network.eval()
    for epoch in range(4):
        for index in range(7):
            clip, label = data.view(index, epoch % 2)
            features, kept_label = kept.view(index, epoch)
            torch.testing.assert_close(features, network.forward_to("layer3", clip[None])[0], rtol=1e-4, atol=1e-5)
            assert kept_label == label
    assert len(kept) == 7


def test_cut_off_it_goes_on(network: Video3DResNet, tmp_path: Path) -> None:
    data, made = MemoryClips(8), 0
    part = frozen_part(network, "layer3", CPU)

    def cut_off(batch: Batch) -> Tensor:
        nonlocal made
        made += 1
        if made == 4:  # in the second view
            raise KeyboardInterrupt
        return part(batch)

    first = FeatureCache(data, tmp_path / "cut", num_views=2, shape=SHAPE)
    with pytest.raises(KeyboardInterrupt):
        first.compute(cut_off, fabric(), batch_size=3, workers=0)
    data.asked.clear()
    seen: list[tuple[int, int]] = []
    again = FeatureCache(data, tmp_path / "cut", num_views=2, shape=SHAPE)
    again.compute(part, fabric(), batch_size=3, workers=0, on_clip=lambda done, of: seen.append((done, of)))
    assert data.asked == [(1, index) for index in range(8)]
    assert seen == [(11, 16), (14, 16), (16, 16)]
    whole = kept_of(network, MemoryClips(8), tmp_path / "whole", views=2)
    for epoch in range(2):
        for index in range(8):
            torch.testing.assert_close(again.view(index, epoch)[0], whole.view(index, epoch)[0])

    data.asked.clear()
    again.compute(part, fabric(), batch_size=3, workers=0)
    assert data.asked == []


def test_a_broken_clip_is_its_error_and_the_rest_is_kept(network: Video3DResNet, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="clip 4 is broken"):
        kept_of(network, MemoryClips(6, broken=4), tmp_path, views=1)
    mended = MemoryClips(6)
    kept_of(network, mended, tmp_path, views=1)
    assert mended.asked == [(0, 3), (0, 4), (0, 5)]


@pytest.mark.parametrize(("stage", "layer"), [("head", "layer4"), ("top", "layer3")])
def test_learning_from_kept_features_is_learning_from_the_clips(tmp_path: Path, stage: str, layer: str) -> None:
    config = TrainConfig(
        stage=stage,
        epochs=3, batch_size=4, optimizer="sgd", learning_rate=0.05, batch_norm="batch", workers=0,
    )  # fmt: skip
    card, states = tiny_card(blocks=True), []
    for name, views in (("kept", 2), ("clips", 0)):
        network = wake_blocks(tiny_network(card))
        train: TrainingData = TwoViews(8)
        validation: TrainingData = SameClips(4, seed=1)
        if views:
            train = kept_of(network, MemoryClips(8), tmp_path / "train", views=2, layer=layer)
            validation = kept_of(network, validation, tmp_path / "validation", views=1, layer=layer)
        run(
            training(
                tmp_path / name, network, card, replace(config, frozen_views=views),
                train=train, validation=validation, sees_features=bool(views),
            )
        )  # fmt: skip
        states.append(network.state_dict())
    for key, tensor in states[1].items():
        torch.testing.assert_close(states[0][key], tensor, rtol=1e-3, atol=1e-5, msg=key)
    kept, clips = (read_metrics(tmp_path / name / "metrics.csv") for name in ("kept", "clips"))
    for of_kept, of_clips in zip(kept, clips, strict=True):
        assert of_kept == pytest.approx(of_clips, rel=1e-3, abs=1e-5)


def test_what_does_not_fit_is_refused_before_it_is_computed(tmp_path: Path) -> None:
    room = 4 * 64 * 8 * (100 * 8 + 50)
    check_room((64, 2, 2, 2), num_clips=100, num_views=8, num_validation=50, max_bytes=room)
    message = (
        r"8 views of 100 training clips and of 50 validation clips take .* --set cache_gib=.* --set frozen_views=0"
    )
    with pytest.raises(UsageError, match=message):
        check_room((64, 2, 2, 2), num_clips=100, num_views=8, num_validation=50, max_bytes=room - 1)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        FeatureCache(MemoryClips(2), tmp_path / "file", num_views=1, shape=(1, 1, 1, 1))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system has no such call")
def test_the_disk_is_taken_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full while the files grow would end the process by SIGBUS."""
    FeatureCache(MemoryClips(2), tmp_path / "there", num_views=3, shape=(64, 2, 8, 8))
    assert 512 * (tmp_path / "there" / "views").stat().st_blocks >= 2 * 3 * 64 * 2 * 8 * 8 * 4

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    for _ in range(2):  # the second time the files have their length
        with pytest.raises(OutputError, match="cannot be written: No space left on device"):
            FeatureCache(MemoryClips(2), tmp_path / "full", num_views=3, shape=(64, 2, 8, 8))


def _change(path: Path, index: int) -> None:
    content = bytearray(path.read_bytes())
    content[index] ^= 8
    path.write_bytes(content)


def test_a_damaged_view_is_never_fed_and_made_again(
    network: Video3DResNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Features, classes and checksums, and a file that lost its end."""
    data = MemoryClips(6)
    whole = kept_of(network, data, tmp_path, views=2)
    expected = [
        (whole.view(index, epoch)[0].clone(), whole.view(index, epoch)[1]) for index in range(6) for epoch in (0, 1)
    ]
    one = 4 * 32 * 2 * 2 * 2
    damages = [
        lambda: _change(tmp_path / "views", 4 * one + 17),
        lambda: _change(tmp_path / "classes", 8 * 4),
        lambda: _change(tmp_path / "checksums", 8 * 4),
        lambda: os.truncate(tmp_path / "views", 4 * one),
    ]
    for number, damage in enumerate(damages):
        damage()
        damaged = FeatureCache(data, tmp_path, num_views=2, shape=SHAPE)
        with pytest.raises(OutputError, match=r"View 0 of clip 4 in .* is damaged.*--resume recomputes it"):
            damaged.view(4, 0)
        data.asked.clear()
        caplog.clear()
        again = kept_of(network, data, tmp_path, views=2)
        assert (0, 4) in data.asked
        assert len(data.asked) == (3 if number < 3 else 9), "the batches that hold one"
        (record,) = caplog.records
        assert f"{1 if number < 3 else 8} cached views in" in record.message
        found = [again.view(index, epoch) for index in range(6) for epoch in (0, 1)]
        for (features, label), (right, right_label) in zip(found, expected, strict=True):
            assert label == right_label
            torch.testing.assert_close(features, right, rtol=1e-4, atol=1e-5)


def test_views_that_changed_places_are_noticed(network: Video3DResNet, tmp_path: Path) -> None:
    kept_of(network, MemoryClips(4), tmp_path, views=1)
    for name in ("views", "classes", "checksums"):
        content = (tmp_path / name).read_bytes()
        size = len(content) // 4
        (tmp_path / name).write_bytes(content[size : 2 * size] + content[:size] + content[2 * size :])
    with pytest.raises(OutputError, match="damaged"):
        FeatureCache(MemoryClips(4), tmp_path, num_views=1, shape=SHAPE).view(0, 0)


def test_kept_views_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "views").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match="is a link"):
        FeatureCache(MemoryClips(2), tmp_path / "kept", num_views=1, shape=SHAPE)
    assert (tmp_path / "precious").read_text() == "precious"
