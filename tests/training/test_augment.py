"""Random changes are the same in all frames of a clip, and the same again from the same numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nonlocal_video.errors import UsageError
from nonlocal_video.training.augment import Augmentation, BatchMixer, ClipAugmenter, seeded

STRONG = Augmentation(crop_area=(0.2, 0.6), brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2)
STILL = Augmentation(
    crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=1.0, brightness=0, contrast=0, saturation=0, speed=(1.0, 1.0)
)
"""Mirrors and does nothing else."""


def picture(height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("seed", range(5))
def test_a_clip_of_equal_frames_stays_one(seed: int) -> None:
    frames = picture(60, 80).expand(6, -1, -1, -1)
    with seeded(seed):
        changed = ClipAugmenter(STRONG, 32)(frames, "wave")
    assert changed.shape == (6, 32, 32, 3)
    assert changed.dtype == torch.uint8
    assert (changed == changed[:1]).all()
    with seeded(seed):
        assert torch.equal(ClipAugmenter(STRONG, 32)(frames, "wave"), changed)
    with seeded(seed + 5):
        assert not torch.equal(ClipAugmenter(STRONG, 32)(frames, "wave"), changed)


def test_each_frame_is_changed_as_if_it_were_alone() -> None:
    frames = torch.stack([picture(), picture().flip(0), picture().roll(7, 1)])
    with seeded(3):
        together = ClipAugmenter(STRONG, 32)(frames, "wave")
    for position in range(3):
        with seeded(3):
            alone = ClipAugmenter(STRONG, 32)(frames[position : position + 1], "wave")
        assert torch.equal(together[position], alone[0])


def test_only_classes_without_left_and_right_are_mirrored() -> None:
    frames = picture().expand(2, -1, -1, -1)
    augmenter = ClipAugmenter(replace(STILL, left_right_classes=("swipe left",)), 40)
    assert torch.equal(augmenter(frames, "wave"), frames.flip(2))
    assert torch.equal(augmenter(frames, "swipe left"), frames)
    with pytest.raises(UsageError, match=r"contains 'swipe lft'; the classes are: swipe left, wave"):
        replace(STILL, left_right_classes=("swipe lft",)).check_classes(("swipe left", "wave"))


def test_half_of_the_clips_are_mirrored_and_times_fill_their_ranges() -> None:
    frames = picture().expand(1, -1, -1, -1)
    augmenter = ClipAugmenter(replace(STILL, flip=0.5, speed=(0.5, 2.0), start=0.5), 40)
    mirrored, speeds, starts = 0, [], []
    for number in range(300):
        with seeded(number):
            speed, start = augmenter.draw_time()
            mirrored += int(torch.equal(augmenter(frames, "wave"), frames.flip(2)))
        speeds.append(speed)
        starts.append(start)
    assert 110 < mirrored < 190
    assert 0.5 <= min(speeds) < 0.55 < 1.9 < max(speeds) <= 2.0
    assert np.median(speeds) == pytest.approx(1.0, abs=0.15)  # as often faster as slower
    assert 0.25 <= min(starts) < 0.27 < 0.73 < max(starts) <= 0.75


def test_seeded_leaves_the_random_numbers_outside_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with seeded(1, 2, 3):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1, 2, 4):
        assert not torch.equal(torch.rand(3), inside)


def test_mixup_is_a_mean_of_two_clips_alike_in_all_frames() -> None:
    clips = torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 3, 4, 8, 8)
    mixed, targets = BatchMixer(Augmentation(mixup=1.0), 5)(clips, torch.tensor([4, 0, 2]), seed=0, epoch=1, batch=2)
    share = targets[1, 0].item()
    assert 0 < share < 1
    torch.testing.assert_close(targets[1], torch.tensor([share, 0, 0, 0, 1 - share]))
    torch.testing.assert_close(mixed[1], torch.full((3, 4, 8, 8), share * 1.0 + (1 - share) * 0.0))
    torch.testing.assert_close(mixed[2], torch.full((3, 4, 8, 8), share * 2.0 + (1 - share) * 1.0))


def test_cutmix_pastes_one_box_into_all_frames_and_targets_say_how_large() -> None:
    clips = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, 3, 4, 32, 32)
    mixed, targets = BatchMixer(Augmentation(cutmix=1.0), 2)(clips, torch.tensor([0, 1]), seed=1, epoch=0, batch=0)
    box = mixed[0] == 1.0
    assert (box == box[:1, :1]).all()
    pasted = box.float().mean().item()
    assert 0 < pasted < 1
    torch.testing.assert_close(targets, torch.tensor([[1 - pasted, pasted], [pasted, 1 - pasted]]))


def test_mixing_depends_on_its_numbers_alone_and_none_gives_one_hot() -> None:
    clips, classes = torch.rand(4, 3, 2, 8, 8), torch.tensor([0, 1, 2, 0])
    mixer = BatchMixer(Augmentation(mixup=0.4, cutmix=1.0), 3)
    batches = [mixer(clips, classes, seed=0, epoch=0, batch=batch) for batch in range(12)]
    torch.rand(5)
    again = mixer(clips, classes, seed=0, epoch=0, batch=3)
    assert torch.equal(again[0], batches[3][0])
    assert torch.equal(again[1], batches[3][1])
    is_cut = [bool(((mixed == clips) | (mixed == clips.roll(1, 0))).all()) for mixed, _ in batches]
    assert len(set(is_cut)) == 2  # each batch has one of the two
    plain, one_hot = BatchMixer(Augmentation(), 3)(clips, classes, seed=0, epoch=0, batch=0)
    assert plain is clips
    assert one_hot.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_area": (0.0, 1.0)}, r"crop_area = \(0.0, 1.0\) should be two numbers from 0.01 to 1"),
        ({"crop_area": (0.9, 0.5)}, "in order"),
        ({"speed": (0.5, 20.0)}, "from 0.1 to 10"),
        ({"flip": 1.5}, "flip = 1.5 should be from 0 to 1"),
        ({"hue": 0.6}, "hue = 0.6 should be from 0 to 0.5"),
        ({"mixup": float("inf")}, "mixup = inf should be a finite number"),
        ({"start": float("nan")}, "start = nan"),
    ],
)
def test_values_out_of_range_are_refused(change, message) -> None:
    with pytest.raises(UsageError, match=message):
        Augmentation(**change)


def test_only_the_cpus_random_numbers_are_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of GPUs stay apart in every process: a batch that is mixed must not give all the same dropout."""

    def seed_all(seed: int) -> None:
        raise AssertionError("the generators of all GPUs were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: False)
    before = torch.get_rng_state()
    with seeded(1, 2, 3):
        drawn = torch.rand(4)
    with seeded(1, 2, 3):
        assert torch.equal(torch.rand(4), drawn)
    assert torch.equal(torch.get_rng_state(), before)
    clips, classes = torch.rand(4, 3, 2, 8, 8), torch.arange(4)
    BatchMixer(Augmentation(mixup=0.8, cutmix=1.0), 4)(clips, classes, seed=0, epoch=0, batch=0)
