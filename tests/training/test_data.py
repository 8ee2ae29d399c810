"""Views of training clips, the same from every loading process."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_parts import every_view
from training_clips import SPEC, write_clip

from nonlocal_video.datasets.manifest import Manifest
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.preprocessing import ClipLoader
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.augment import Augmentation
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.training.disk_cache import DiskCache
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video

LABELS = ("jump", "swipe left", "wave")


def assert_same(some: list[tuple[torch.Tensor, int]], others: list[tuple[torch.Tensor, int]]) -> None:
    assert [label for _, label in some] == [label for _, label in others]
    for (clip, _), (other, _) in zip(some, others, strict=True):
        assert torch.equal(clip, other)


@pytest.fixture
def dataset(manifest: Manifest) -> Iterator[ClipDataset]:
    made = ClipDataset(manifest.usable, LABELS, SPEC, augmentation=Augmentation(), seed=3)
    yield made
    made.close()


# Longer than the clips and with every rule that is not the default.
OTHERS_RULES = replace(
    SPEC,
    num_frames=40,
    short_side=47,
    short_clips="hold_last_frame",
    crop_placement="steps_rounded_down",
    longer_side="nearest",
)


@pytest.mark.parametrize("spec", [SPEC, OTHERS_RULES])
def test_without_augmentation_it_is_what_classify_sees(manifest: Manifest, tmp_path: Path, spec: InputSpec) -> None:
    dataset = ClipDataset(manifest.usable, LABELS, spec, cache=DiskCache(tmp_path))
    with VideoReader() as reader:
        for _ in range(2):  # decoded, then from the cache
            for row, (clip, label) in zip(manifest.usable, every_view(dataset), strict=True):
                seen = ClipLoader(reader).load(row.path, spec, ClipRequest(), originals=None)
                assert torch.equal(clip, seen.network_input(0, 0)[0])
                assert clip.shape == (3, spec.num_frames, 40, 40)
                assert clip.dtype == torch.float32
                assert LABELS[label] == row.label
    assert (dataset.statistics.clips, dataset.statistics.from_cache, dataset.statistics.put_in_cache) == (12, 6, 6)
    assert dataset.classes.tolist() == [0, 0, 1, 1, 2, 2]
    dataset.close()


@pytest.mark.slow
def test_views_depend_on_seed_epoch_and_place_and_not_on_workers(dataset: ClipDataset) -> None:
    alone = every_view(dataset)
    assert_same(every_view(dataset, workers=2), alone)  # forked while this process has a decoding child
    assert torch.equal(dataset.view(4, 0)[0], alone[4][0])  # in whatever order they are loaded
    others = every_view(dataset, workers=2, epoch=1)
    assert_same(every_view(dataset, epoch=1), others)
    assert not any(torch.equal(clip, other) for (clip, _), (other, _) in zip(alone, others, strict=True))
    assert dataset.statistics.clips == 6 * 4 + 1
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again.view(0, 1)[0], others[0][0])
    again.close()
    other_seed = ClipDataset(dataset.rows, LABELS, SPEC, augmentation=Augmentation(), seed=4)
    assert not torch.equal(other_seed.view(0, 0)[0], alone[0][0])
    other_seed.close()


@pytest.mark.slow
def test_the_cache_changes_no_pixel_and_its_statistics_are_true(dataset: ClipDataset, tmp_path: Path) -> None:
    plain = [every_view(dataset, epoch=epoch) for epoch in range(3)]
    assert (dataset.statistics.from_cache, dataset.statistics.put_in_cache) == (0, 0)
    assert dataset.statistics.decode_seconds > 0 == dataset.statistics.cache_seconds
    # A clip at the short side of 48 has 20 frames of 64 x 48, a checksum of 4 bytes for each and one for the rest.
    # Four of them fit.
    cache = DiskCache(tmp_path, max_bytes=4 * (20 * (64 * 48 * 3 + 4) + 4 + 128), max_clip_bytes=200_000)
    cached = ClipDataset(dataset.rows, LABELS, SPEC, augmentation=Augmentation(), seed=3, cache=cache)
    for epoch in range(3):
        assert_same(every_view(cached, workers=2 * (epoch % 2), epoch=epoch), plain[epoch])
    assert (cached.statistics.clips, cached.statistics.from_cache, cached.statistics.put_in_cache) == (18, 8, 4)
    assert 0 < cached.statistics.decode_share < 1
    assert cache.num_bytes == cache.max_bytes
    other_view = replace(SPEC, short_side=44)
    misses = ClipDataset(dataset.rows, LABELS, other_view, augmentation=Augmentation(), cache=cache)
    assert misses.view(0, 0)[0].shape == (3, 8, 40, 40)
    assert misses.statistics.from_cache == 0
    cached.close()
    misses.close()


@pytest.mark.slow
def test_speed_start_and_loops_show_the_frames_that_they_should(tmp_path: Path, manifest: Manifest) -> None:
    """Frames whose grey is their number, without changes in space, so that each view tells its times."""
    path = tmp_path / "ramp.mp4"
    frames = (np.full((48, 48, 3), 4 + 12 * number, np.uint8) for number in range(20))
    write_video(path, frames, fps=10, crf=0)
    row = replace(manifest.usable[0], path=str(path), width=48, height=48)
    spec = replace(SPEC, crop=48, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def numbers(spec: InputSpec, **changes: object) -> list[list[int]]:
        still = Augmentation(crop_area=(1, 1), crop_ratio=(1, 1), flip=0, brightness=0, contrast=0, saturation=0)
        augmentation = replace(still, **changes)
        dataset = ClipDataset([row], LABELS, spec, augmentation=augmentation, cache=DiskCache(tmp_path / "cache"))
        found = []
        for epoch in range(12):
            clip, _ = dataset.view(0, epoch)
            found.append([round((value * 255 - 4) / 12) for value in clip.mean(dim=(0, 2, 3)).tolist()])
        dataset.close()
        return found

    middle = list(range(6, 14))
    assert numbers(spec, start=0.0, speed=(1, 1)) == [middle] * 12
    assert numbers(spec, start=0.0, speed=(2, 2)) == [list(range(3, 19, 2))] * 12
    moved = numbers(spec, start=1.0, speed=(1, 1))
    assert len({view[0] for view in moved}) > 4
    for view in moved:
        assert view == list(range(view[0], view[0] + 8))
    long_view = replace(spec, num_frames=40)
    assert numbers(long_view, start=0.0, speed=(1, 1)) == [[*range(20), *range(20)]] * 12
    held, spread = replace(long_view, short_clips="hold_last_frame"), replace(long_view, short_clips="spread")
    assert numbers(held, start=1.0, speed=(1, 1)) == [[*range(20), *[19] * 20]] * 12
    assert numbers(spread, start=1.0, speed=(1, 1)) == [[number // 2 for number in range(40)]] * 12


def test_a_file_that_changed_or_vanished_stops_and_is_named(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    row = replace(manifest.usable[0], path=str(path))
    dataset = ClipDataset([row], LABELS, SPEC, augmentation=Augmentation())
    with pytest.raises(VideoError, match=r"a\.mp4: .*was readable when it was checked") as caught:
        dataset.view(0, 0)
    assert caught.value.code == "not_found"
    write_clip(path, 7, num_frames=15)
    with pytest.raises(VideoError, match=r"a\.mp4: the video has changed since"):
        dataset.view(0, 0)
    with pytest.raises(VideoError, match=r"a\.mp4: the video has changed"):
        every_view(dataset, workers=1)
    dataset.close()


def test_rows_that_cannot_be_trained_on_are_refused(manifest: Manifest) -> None:
    row = manifest.usable[0]
    with pytest.raises(UsageError, match="rows is empty"):
        ClipDataset([], LABELS, SPEC)
    with pytest.raises(UsageError, match="cannot be used: corrupt: x"):
        ClipDataset([replace(row, problem="corrupt: x", split=None)], LABELS, SPEC)
    with pytest.raises(UsageError, match="has the class 'jump'; the network has wave, clap"):
        ClipDataset([row], ("wave", "clap"), SPEC)
    with pytest.raises(UsageError, match="left_right_classes contains 'left'"):
        ClipDataset([row], LABELS, SPEC, augmentation=Augmentation(left_right_classes=("left",)))
