"""Clips with and without labels, and stills, as one data set."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_parts import every_view
from PIL import Image
from training_clips import SPEC

from nonlocal_video.datasets.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.files import Selection
from nonlocal_video.training.augment import Augmentation
from nonlocal_video.training.data import ClipDataset
from nonlocal_video.training.disk_cache import DiskCache
from nonlocal_video.training.images import ImageDataset, check_images
from nonlocal_video.training.mixed_data import MixedDataset
from nonlocal_video.training.objective import UNLABELLED
from nonlocal_video.training.run_data import split_unlabelled
from nonlocal_video.training.unlabelled import NO_LABEL, UnlabelledClips, check_unlabelled
from nonlocal_video.video.decode import VideoReader

LABELS = ("jump", "swipe left", "wave")
AUGMENTATION = Augmentation(left_right_classes=("swipe left",))


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stills") / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def parts(manifest: Manifest, still: Path) -> Iterator[tuple[ClipDataset, UnlabelledClips, ImageDataset]]:
    rows = manifest.usable
    made = (
        ClipDataset(rows[:3], LABELS, SPEC, augmentation=AUGMENTATION, seed=1),
        UnlabelledClips(rows[3:5], SPEC, augmentation=AUGMENTATION, seed=2),
        ImageDataset(check_images([still]), SPEC, augmentation=AUGMENTATION, seed=3),
    )
    yield made
    for part in made:
        part.close()


def test_a_folder_without_classes_is_checked_and_bad_files_get_rows(
    bad_clips: Path, manifest: Manifest, tmp_path: Path
) -> None:
    shutil.copytree(bad_clips, tmp_path / "clips")
    (tmp_path / "clips" / ".hidden.mp4").write_text("not looked at")
    labelled = [row for row in manifest.usable if row.path.endswith("jump/1.mp4")]
    report = check_unlabelled([tmp_path / "clips"], SPEC, [VideoReader()], labelled=labelled)
    rows = {str(Path(row.path).relative_to(tmp_path / "clips")): row for row in report.manifest.rows}
    assert len(rows) == 11
    problems = {name: row.problem for name, row in rows.items() if not row.usable}
    assert set(problems) == {"jump/note.mp4", "jump/1.mp4"}  # two copies contradict nothing: there are no labels
    assert str(problems["jump/note.mp4"]).startswith("not_a_video: ")
    assert str(problems["jump/1.mp4"]).startswith("labelled: it is ")
    assert [Path(path).name for path in report.short] == ["short.mp4"]
    assert any(same.by == "pictures" for same in report.same)
    write_manifest(tmp_path / "unlabelled.csv", report.manifest)
    assert read_manifest(tmp_path / "unlabelled.csv") == report.manifest
    few = check_unlabelled([tmp_path / "clips"], SPEC, [VideoReader()], selection=Selection(include=("*/wave/*",)))
    assert len(few.manifest.usable) == 3


def test_copies_of_a_clip_without_a_label_are_on_one_side() -> None:
    sizes: dict[str, Any] = {"duration_seconds": 2.0, "num_frames": 20, "fps": 10.0, "width": 96, "height": 72}

    def row(number: int, content: int) -> ManifestRow:
        return ManifestRow(f"{number}.mp4", NO_LABEL, sha256=f"{number:064x}", content=f"{content}.mp4", **sizes)

    rows = (row(10, 10), row(11, 10), row(12, 12), row(20, 12), row(21, 21), row(30, 30))
    learnt, measured = split_unlabelled(Manifest(rows), divide=True)
    assert [one.path for one in learnt] == ["12.mp4", "20.mp4", "21.mp4"]
    assert [one.path for one in measured] == ["10.mp4", "11.mp4", "30.mp4"]
    assert split_unlabelled(Manifest(rows), divide=False) == (rows, ())
    learnt, measured = split_unlabelled(Manifest(rows[2:5]), divide=True)  # no first one's bytes say so
    assert [one.path for one in measured] == ["12.mp4", "20.mp4"]


def test_unlabelled_clips_are_seen_as_labelled_ones_are(manifest: Manifest, tmp_path: Path) -> None:
    rows = manifest.usable
    plain = Augmentation()
    labelled = ClipDataset(rows, LABELS, SPEC, augmentation=plain, seed=5)
    unlabelled = UnlabelledClips(rows, SPEC, augmentation=plain, seed=5, cache=DiskCache(tmp_path))
    for epoch in range(2):
        for index in range(len(rows)):
            clip, label = unlabelled.view(index, epoch)
            assert torch.equal(clip, labelled.view(index, epoch)[0])
            assert label == UNLABELLED
    assert unlabelled.classes.tolist() == [UNLABELLED] * 6
    assert (unlabelled.statistics.clips, unlabelled.statistics.from_cache) == (12, 6)
    labelled.close()
    unlabelled.close()


@pytest.mark.slow
def test_parts_come_one_after_another(
    parts: tuple[ClipDataset, UnlabelledClips, ImageDataset],
) -> None:
    together = MixedDataset(parts)
    assert (len(together), together.labels, together.spec) == (6, LABELS, SPEC)
    assert together.classes.tolist() == [*parts[0].classes.tolist(), UNLABELLED, UNLABELLED, UNLABELLED]
    assert [together.path(index) for index in range(6)] == [row.path for part in parts for row in part.rows]
    for epoch in (0, 3):
        seen = every_view(together, epoch, workers=1)
        assert [label for _, label in seen] == together.classes.tolist()
        expected = [part.view(index, epoch)[0] for part in parts for index in range(len(part))]
        assert torch.equal(torch.stack([clip for clip, _ in seen]), torch.stack(expected))
    assert together.statistics.clips == sum(part.statistics.clips for part in parts) == 24
    assert together.statistics.decode_seconds == pytest.approx(sum(part.statistics.decode_seconds for part in parts))
    together.close()


def test_with_a_number_of_views_epochs_go_round(parts: tuple[ClipDataset, UnlabelledClips, ImageDataset]) -> None:
    together = MixedDataset(parts, views=2)
    seen = []
    for epoch in range(4):
        seen.append([together.view(index, epoch)[0] for index in (1, 4, 5)])
    for index in range(3):
        assert torch.equal(seen[0][index], seen[2][index])
        assert torch.equal(seen[1][index], seen[3][index])
        assert not torch.equal(seen[0][index], seen[1][index])
    names = [[together.view_name(index, epoch) for index in range(6)] for epoch in range(4)]
    assert names[0] == names[2]
    assert names[1] == names[3]
    assert len({*names[0], *names[1]}) == 12
    assert names[0] == [part.view_name(index, 0) for part in parts for index in range(len(part))]
    assert MixedDataset(parts).view_name(5, 2) not in {*names[0], *names[1]}


def test_view_names_tell_apart_whatever_changes_the_pixels(manifest: Manifest) -> None:
    rows = manifest.usable

    def name(index: int = 0, epoch: int = 0, **changes: object) -> str:
        given = {"spec": SPEC, "augmentation": Augmentation(), "seed": 0, **changes}
        spec = given.pop("spec")
        return ClipDataset(rows, LABELS, spec, **given).view_name(index, epoch)

    changed = [
        name(1),
        name(0, 1),
        name(seed=1),
        name(spec=replace(SPEC, short_side=44)),
        name(augmentation=Augmentation(flip=0)),
        name(augmentation=Augmentation(left_right_classes=("jump",))),
        name(augmentation=None),
        name(decoder="pyav"),
    ]
    assert len({name(), *changed}) == 9
    assert name() == name()
    assert name(2, 5, augmentation=None) == name(2, 7, augmentation=None, seed=3)  # the middle view is always the same
    assert name() == UnlabelledClips(rows, SPEC, augmentation=Augmentation()).view_name(0, 0)


def test_parts_that_do_not_go_together_are_refused(parts: tuple[ClipDataset, UnlabelledClips, ImageDataset]) -> None:
    with pytest.raises(UsageError, match="parts is empty"):
        MixedDataset([])
    with pytest.raises(UsageError, match="views = 0 should be at least 1"):
        MixedDataset(parts, views=0)
    other_view = UnlabelledClips(parts[1].rows, replace(SPEC, crop=32))
    with pytest.raises(UsageError, match="make all for the same input"):
        MixedDataset([parts[0], other_view])
    other_labels = ClipDataset(parts[0].rows, LABELS[::-1], SPEC)
    with pytest.raises(UsageError, match="all need the same"):
        MixedDataset([parts[0], other_labels])
    assert MixedDataset(parts[1:]).labels == ()
