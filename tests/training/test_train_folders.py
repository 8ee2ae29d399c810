"""`train` on folders as they lie on real disks: splits above the classes, and files that are not clips."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nonlocal_video.cli.weights import _read_labels
from nonlocal_video.datasets.manifest import read_manifest
from nonlocal_video.errors import UsageError

pytestmark = pytest.mark.slow

Run = Callable[..., Any]  # the fixtures `run` and `train`


@pytest.fixture
def split_tree(divided_clips: Path, tmp_path: Path) -> Path:
    """The divided clips in `train/`, `val/` and `test/`, among files that are not clips."""
    top = tmp_path / "clips"
    for row in read_manifest(divided_clips).rows:
        clip = Path(row.path)
        split = "train" if row.split == "train" else ("val" if int(clip.stem) < 10 else "test")
        (top / split / row.label).mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, top / split / row.label)
    for name in ("README.md", "labels.json", "train/.DS_Store", "train/jump/0.srt"):
        (top / name).write_text("x")
    return top


def test_splits_above_the_classes_are_taken(train: Run, split_tree: Path, tmp_path: Path) -> None:
    done = train(split_tree)
    assert done.status == 0
    assert "train (8 clips, for training), validation (2 clips, for validation), test (2 clips, held out)" in done.err
    assert "Passed over in folders: 1 hidden, 1 subtitles, 1 tables and data, 1 text." in done.err
    manifest = read_manifest(tmp_path / "run" / "manifest.csv")
    assert manifest.labels == ("jump", "wave")
    assert {split: len(manifest.of_split(split)) for split in manifest.splits} == {
        "train": 8,
        "validation": 2,
        "test": 2,
    }
    refused = train("--resume", "--all-files", model=None, epochs=None, workers=None, device=None)
    assert refused.status == 2
    assert "omit --all-files" in refused.err


def test_test_clips_may_be_what_is_measured_on(train: Run, split_tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(split_tree / "val")
    assert train(split_tree, "--validation", "test").status == 0
    manifest = read_manifest(tmp_path / "run" / "manifest.csv")
    assert {split: len(manifest.of_split(split)) for split in manifest.splits} == {"train": 8, "test": 2}


def test_folders_without_labels_pass_over_what_is_no_clip_or_no_picture(
    train: Run, divided_clips: Path, teacher: Path, tmp_path: Path
) -> None:
    clips, stills = tmp_path / "unlabelled", tmp_path / "stills"
    clips.mkdir()
    stills.mkdir()
    shutil.copy(next(divided_clips.parent.glob("*/0.mp4")), clips)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(stills / "0.png")
    for name in ("notes.txt", ".DS_Store", "sources.csv"):
        (clips / name).write_text("x")
        (stills / name).write_text("x")
    (clips / "poster.jpg").write_text("x")
    done = train(
        divided_clips,
        "--teacher",
        teacher,
        "--unlabelled",
        clips,
        "--stills",
        stills,
        "--set",
        "distillation.second_head=true",
    )
    assert done.err.count("of 1 files without labels can be used.") == 2
    assert "Passed over in folders: 1 hidden, 1 pictures, 1 tables and data, 1 text." in done.err
    assert "Passed over in folders: 1 hidden, 1 tables and data, 1 text." in done.err
    assert done.status == 0
    assert len(json.loads((tmp_path / "run" / "stills.json").read_text())) == 1


@pytest.mark.parametrize("text", ["\ufeffwave\r\njump\r\n", "wave\njump"])
def test_label_files_may_have_a_byte_order_mark(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode())
    assert _read_labels(path) == ["wave", "jump"]
    path.write_bytes("wave\njump".encode("utf-16"))
    with pytest.raises(UsageError, match="UTF-16"):
        _read_labels(path)
