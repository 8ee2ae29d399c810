"""The order of clips, shares of several processes, and what becomes of an error in a worker."""

from __future__ import annotations

import signal
import time

import pytest
import torch
from engine_parts import MemoryClips
from torch import Tensor
from torch.utils.data import DataLoader

from nonlocal_video.errors import OutputError, VideoError
from nonlocal_video.training.loading import BatchLoader, EpochBatches, EveryClip, loaded


def places_of(loader: DataLoader) -> list[list[int]]:
    return [loaded(batch)[2].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_order_does_not_depend_on_workers(workers: int) -> None:
    batches = EpochBatches(11, 2, seed=3, epochs=2)
    data = MemoryClips(11)
    found = [loaded(batch) for batch in BatchLoader(data, batches, workers=workers, pin_memory=False)]
    seen = [indices.tolist() for _, _, indices in found]
    assert seen == [batches.clip_indices(epoch, batch) for epoch in (0, 1) for batch in range(5)]
    assert seen[:5] != seen[5:]
    for number, (clips, classes, indices) in enumerate(found):
        assert torch.equal(classes, indices % 2)
        assert torch.equal(clips, data.clips[indices].roll(number // 5, dims=-1))


def test_while_an_epoch_ends_the_next_one_is_loaded() -> None:
    """Two workers have two batches each in hand: after the first epoch's last batch, clips of the second are there."""
    asked = torch.zeros(3, dtype=torch.int64).share_memory_()

    class Counted(MemoryClips):
        def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
            asked[epoch] += 1
            return super().view(index, epoch)

    loader = iter(BatchLoader(Counted(8), EpochBatches(8, 4, seed=0, epochs=3), workers=2, pin_memory=False))
    for _ in range(2):
        loaded(next(loader))
    deadline = time.monotonic() + 30
    while asked[1] < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert asked[0] == asked[1] == 8


def test_each_clip_comes_once_in_an_epoch_and_the_rest_has_another_turn() -> None:
    batches = EpochBatches(10, 3, seed=0, epochs=12)
    assert (len(batches), batches.num_batches) == (36, 3)
    views = [view for batch in batches for view in batch]
    left_away = set()
    for epoch in range(12):
        indices = [view.clip for view in views if view.epoch == epoch]
        assert len(set(indices)) == len(indices) == 9
        left_away |= set(range(10)) - set(indices)
    assert len(left_away) > 3


def test_an_epoch_has_whole_steps() -> None:
    batches = EpochBatches(11, 2, seed=0, epochs=2, group=2)
    assert batches.num_batches == 4
    assert [batch[0].epoch for batch in batches] == [0] * 4 + [1] * 4


def test_a_run_can_begin_in_the_middle_of_an_epoch() -> None:
    batches = EpochBatches(9, 2, seed=1, epochs=3)
    whole = list(batches)
    batches.first = 6
    assert list(batches) == whole[6:]
    assert len(batches) == 6


def test_orders_differ_between_seeds() -> None:
    assert list(EpochBatches(20, 5, seed=0, epochs=1)) != list(EpochBatches(20, 5, seed=1, epochs=1))


def test_processes_share_every_global_batch() -> None:
    whole = EpochBatches(13, 4, seed=5, epochs=2)
    shares = [EpochBatches(13, 4, seed=5, epochs=2, rank=rank, world_size=2) for rank in range(2)]
    for batch, of_first, of_second in zip(whole, *shares, strict=True):
        assert len(of_first) == len(of_second) == 2
        assert sorted(of_first + of_second) == sorted(batch)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_measuring_sees_every_clip_once(world_size: int) -> None:
    shares = [EveryClip(7, 2, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(view.clip for share in shares for batch in share for view in batch) == list(range(7))
    assert all(len(list(share)) == len(share) for share in shares)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_clip_is_its_video_error(workers: int) -> None:
    loader = BatchLoader(MemoryClips(4, broken=2), EveryClip(4, 2), workers=workers, pin_memory=False)
    batches = iter(loader)
    assert loaded(next(batches))[2].tolist() == [0, 1]
    with pytest.raises(VideoError, match=r"^clip 2 is broken\.$") as caught:
        loaded(next(batches))
    assert caught.value.code == "corrupt"
    loader.close()  # which the error's traceback, that pytest keeps, would keep as well


def test_ctrl_c_does_not_reach_workers() -> None:
    class Asked(MemoryClips):
        def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
            return torch.zeros(1), int(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)

    (batch,) = BatchLoader(Asked(1), EveryClip(1, 1), workers=1, pin_memory=False)
    assert loaded(batch)[1].tolist() == [1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_that_cannot_be_written_is_its_error(workers: int) -> None:
    class FullDisk(MemoryClips):
        def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
            raise OutputError("The cache cannot be written.")

    (batch,) = BatchLoader(FullDisk(2), EveryClip(2, 2), workers=workers, pin_memory=False)
    with pytest.raises(OutputError, match=r"^The cache cannot be written\.$"):  # and no worker's traceback
        loaded(batch)
