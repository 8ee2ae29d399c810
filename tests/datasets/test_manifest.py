"""Manifests are read as they were written, and any other file is refused with its line."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from nonlocal_video.datasets.labelled import read_labelled
from nonlocal_video.datasets.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from nonlocal_video.errors import OutputError, UsageError

ROW = ManifestRow(
    "/clips/a.mp4", "wave", "ann", "train", None, 1 / 3, 20, 29.97, 96, 72, "0f" * 32, "/clips/a.mp4"
)  # fmt: skip
BROKEN = ManifestRow("/clips/b.mp4", "wave", problem="corrupt: b.mp4: it is damaged,\nat its end.")


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_round_trip(tmp_path: Path, ending: str) -> None:
    odd = os.fsdecode(b's\xe9, "1"\n.mp4')  # Latin-1, quotes, a comma and a new line
    rows = (
        ROW,
        BROKEN,
        replace(ROW, path=str(tmp_path / "sub" / odd), group=None, split=None),
        replace(ROW, path="s3://bucket/c.mp4", content=None),
    )
    path = tmp_path / f"manifest{ending}"
    write_manifest(path, Manifest(rows))
    assert read_manifest(path).rows == rows
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_written_leaves_nothing_and_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifest.csv"
    write_manifest(path, Manifest((ROW,)))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        write_manifest(path, Manifest((ROW, BROKEN)))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert read_manifest(path).rows == (ROW,)


def test_clips_below_it_move_with_it_and_evaluate_reads_it(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    clip = str(tmp_path / "here" / "a.mp4")
    write_manifest(tmp_path / "here" / "manifest.csv", Manifest((replace(ROW, path=clip, content=clip), BROKEN)))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = str(tmp_path / "there" / "a.mp4")
    assert read_manifest(tmp_path / "there" / "manifest.csv").rows[0] == replace(ROW, path=moved, content=moved)
    (labelled,) = read_labelled(tmp_path / "there" / "manifest.csv", split="train")
    assert (labelled.path, labelled.label, labelled.group) == (moved, "wave", "ann")


def test_sides() -> None:
    rows = [replace(ROW, path=f"{n}.mp4", split=split) for n, split in enumerate(["fold1", "fold2", "fold10", "test"])]
    manifest = Manifest((*rows, BROKEN))
    assert manifest.splits == ("fold1", "fold2", "fold10", "test")
    train, held_out = manifest.train_val_split("fold2")
    assert [row.split for row in (*train, *held_out)] == ["fold1", "fold10", "fold2"]
    with pytest.raises(UsageError, match=r"split = 'validation' is in no row.*fold1, fold2, fold10, test"):
        manifest.train_val_split()
    divided = Manifest((ROW, replace(ROW, path="v.mp4", split="validation")))
    train, held_out = divided.train_val_split()
    assert [row.split for row in (*train, *held_out)] == ["train", "validation"]
    with pytest.raises(UsageError, match=r"'train' is the training split\. .*: train, validation\.$"):
        divided.train_val_split("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ""}, "line 2: A row of the manifest needs a path and a label"),
        ({"fps": "fast"}, "line 2: fps = 'fast' should be float"),
        ({"num_frames": "0"}, "line 2: .*num_frames = 0 should be above 0"),
        ({"duration_seconds": "nan"}, "line 2: .*duration_seconds = nan should be above 0"),
        ({"sha256": "abc"}, "line 2: .*should be 64 hexadecimal digits"),
        ({"sha256": ""}, "line 2: .*was not checked"),
        ({"width": ""}, "line 2: .*has no width: it was not checked"),
        ({"problem": "corrupt: x"}, "line 2: .*and yet is in split 'train'"),
    ],
)
def test_rows_that_cannot_be_true_are_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = tmp_path / "manifest.csv"
    write_manifest(path, Manifest((ROW,)))
    header, line = path.read_text().splitlines()
    values = dict(zip(header.split(","), line.split(","), strict=True)) | change
    path.write_text(f"{header}\n{','.join(values.values())}\n")
    with pytest.raises(UsageError, match=message):
        read_manifest(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "path,label\na.mp4,wave\n", "of unchecked clips. `nonlocal-video check m.csv"),
        ("m.jsonl", "{}{}\n", "is not a manifest"),
        ("m.jsonl", "[]\n", "line 1 is not a JSON object"),
        ("m.txt", "", "a .csv or a .jsonl file; .* ends in .txt"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_manifest(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_manifest(tmp_path / "none.csv")


def test_a_clip_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a\.mp4' is in the manifest twice"):
        Manifest((ROW, replace(ROW, label="jump")))
