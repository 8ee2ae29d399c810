"""The order of clips, shares of several processes, and what becomes of an error in a worker."""

from __future__ import annotations

import pytest
import torch
from engine_parts import MemoryClips
from torch.utils.data import DataLoader

from nonlocal_video.errors import VideoError
from nonlocal_video.training.loading import EpochBatches, EveryClip, loaded, make_loader


def places_of(loader: DataLoader) -> list[list[int]]:  # type: ignore[type-arg]
    return [loaded(batch)[2].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_order_does_not_depend_on_workers(workers: int) -> None:
    expected = EpochBatches(11, 2, seed=3, shuffle=True)
    batches = EpochBatches(11, 2, seed=3, shuffle=True)
    data = MemoryClips(11)
    loader = make_loader(data, batches, workers=workers, pin_memory=False)
    seen = []
    for epoch in (0, 1):  # the workers live on
        data.set_epoch(epoch)
        batches.epoch = epoch
        found = [loaded(batch) for batch in loader]
        seen.append([places.tolist() for _, _, places in found])
        assert seen[-1] == [expected.places(epoch, batch) for batch in range(5)]
        for clips, classes, places in found:
            assert torch.equal(classes, places % 2)
            assert torch.equal(clips, data.clips[places].roll(epoch, dims=-1))
    assert seen[0] != seen[1]


def test_each_clip_comes_once_in_an_epoch_and_the_rest_has_another_turn() -> None:
    batches = EpochBatches(10, 3, seed=0, shuffle=True)
    assert (len(batches), batches.num_batches) == (3, 3)
    left_away = set()
    for epoch in range(12):
        batches.epoch = epoch
        places = [place for batch in batches for place in batch]
        assert len(set(places)) == len(places) == 9
        left_away |= set(range(10)) - set(places)
    assert len(left_away) > 3


def test_an_epoch_can_begin_in_its_middle() -> None:
    batches = EpochBatches(9, 2, seed=1, shuffle=True)
    whole = list(batches)
    batches.first = 2
    assert list(batches) == whole[2:]
    assert len(batches) == 2


def test_orders_differ_between_seeds_and_unshuffled_is_in_order() -> None:
    assert list(EpochBatches(20, 5, seed=0, shuffle=True)) != list(EpochBatches(20, 5, seed=1, shuffle=True))
    assert list(EpochBatches(5, 2, seed=0, shuffle=False)) == [[0, 1], [2, 3]]


def test_processes_share_every_global_batch() -> None:
    whole = EpochBatches(13, 4, seed=5, shuffle=True)
    shares = [EpochBatches(13, 4, seed=5, shuffle=True, rank=rank, world_size=2) for rank in range(2)]
    for batch, of_first, of_second in zip(whole, *shares, strict=True):
        assert len(of_first) == len(of_second) == 2
        assert sorted(of_first + of_second) == sorted(batch)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_measuring_sees_every_clip_once(world_size: int) -> None:
    shares = [EveryClip(7, 2, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(place for share in shares for batch in share for place in batch) == list(range(7))
    assert all(len(list(share)) == len(share) for share in shares)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_clip_is_its_video_error(workers: int) -> None:
    loader = make_loader(MemoryClips(4, broken=2), EveryClip(4, 2), workers=workers, pin_memory=False)
    batches = iter(loader)
    assert loaded(next(batches))[2].tolist() == [0, 1]
    with pytest.raises(VideoError, match=r"^clip 2 is broken\.$") as caught:
        loaded(next(batches))
    assert caught.value.code == "corrupt"
