"""Trees of folders: classes, splits, frames, links, and files that are not clips."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import unicodedata
from pathlib import Path

import av
import numpy as np
import pytest
from absent import absent
from PIL import Image

from nonlocal_video.datasets.labelled import alike_names, class_indices, read_source
from nonlocal_video.datasets.labelled_clip import LabelledClip, LabelledSource
from nonlocal_video.datasets.split_folders import split_of_name
from nonlocal_video.errors import UsageError

CLASSES = {"jump/a.mp4": "jump", "jump/deep/b": "jump", "wave/c.webm": "wave"}


def tree(top: Path, *names: str) -> Path:
    """Empty files; a name that ends in / is a folder."""
    for name in names:
        if name.endswith("/"):
            (top / name).mkdir(parents=True)
        else:
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).touch()
    return top


def clips_of(found: LabelledSource, top: Path) -> dict[str, tuple[str, str | None]]:
    return {os.path.relpath(clip.path, top): (clip.label, clip.split) for clip in found.clips}


def test_files_that_are_no_clips_have_no_say(tmp_path: Path) -> None:
    strays = (
        "README.md",
        "README",
        "labels.json",
        "LICENSE",
        ".DS_Store",
        "jump/a.srt",
        "jump/poster.jpg",
        "wave/Thumbs.db",
    )
    found = read_source(tree(tmp_path, *CLASSES, *strays, "__MACOSX/jump/a.mp4", ".git/config"))
    assert {name: label for name, (label, _) in clips_of(found, tmp_path).items()} == CLASSES
    assert found.passed_over.counts == {
        "text": 3, "hidden": 2, "system files": 2, "pictures": 1, "subtitles": 1, "tables and data": 1,
    }  # fmt: skip
    assert found.notes == ()
    assert "jump/a.srt" in clips_of(read_source(tree(tmp_path / "all", "jump/a.srt"), all_files=True), tmp_path / "all")
    with pytest.raises(UsageError, match=r"\.DS_Store' is in no class folder"):
        read_source(tmp_path, all_files=True)


def test_a_list_of_clips_beside_the_classes_is_named(tmp_path: Path) -> None:
    found = read_source(tree(tmp_path, *CLASSES, "clips.csv"))
    assert found.notes == (
        f"'{tmp_path}/clips.csv' was not read, as '{tmp_path}' is read by its folders. To use the list, "
        "give its path instead.",
    )


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "VALID", "Testing"), ("videos_train", "videos_val", "videos_test"),
              ("train_256", "dev", "test-set"), ("train", "eval", "holdout")],
)  # fmt: skip
@pytest.mark.parametrize("above", ["", "videos/"])
def test_split_folders_are_splits(tmp_path: Path, names: tuple[str, str, str], above: str) -> None:
    train, val, test = (above + name for name in names)
    clips = (f"{train}/jump/a.mp4", f"{train}/wave/b.mp4", f"{val}/jump/c.mp4", f"{test}/wave/d.mp4")
    found = read_source(tree(tmp_path, *clips, f"{train}/labels.json", "annotations/train.json", "README.md"))
    assert clips_of(found, tmp_path) == {
        clips[0]: ("jump", "train"), clips[1]: ("wave", "train"), clips[2]: ("jump", "validation"),
        clips[3]: ("wave", "test"),
    }  # fmt: skip
    (note,) = found.notes
    assert "train (2 clips, for training), validation (1 clips, for validation), test (1 clips, held out)" in note
    assert found.passed_over.counts == {"tables and data": 2, "text": 1}
    (held_out,) = read_source(tmp_path, split=names[2]).clips
    assert os.path.relpath(held_out.path, tmp_path) == clips[3]


def test_splits_below_the_classes_are_splits_too(tmp_path: Path) -> None:
    found = read_source(tree(tmp_path, "jump/train/a.mp4", "jump/test/b.mp4", "wave/train/c.mp4"))
    assert clips_of(found, tmp_path) == {
        "jump/train/a.mp4": ("jump", "train"), "jump/test/b.mp4": ("jump", "test"),
        "wave/train/c.mp4": ("wave", "train"),
    }  # fmt: skip
    whole = tree(tmp_path / "whole", "jump/train/a.mp4", "wave/c.mp4", "wave/test/d.mp4")
    assert {split for _, split in clips_of(read_source(whole), whole).values()} == {None}


@pytest.mark.parametrize("inside", ["", "ann/"])
def test_a_class_that_is_called_test_among_others_is_a_class(tmp_path: Path, inside: str) -> None:
    found = read_source(tree(tmp_path, f"test/{inside}a.mp4", "jump/b.mp4", "train/c.mp4"))
    assert clips_of(found, tmp_path) == {
        f"test/{inside}a.mp4": ("test", None), "jump/b.mp4": ("jump", None), "train/c.mp4": ("train", None),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/a.mp4", "val/b.mp4"), "'train' in .* is named like a split .* without a class folder"),
        (("train/jump/a.mp4", "test/b.mp4"), r"'test' in .* contains clips without a class folder.*only \(.*/train\)"),
        (
            ("train/jump/a.mp4", "val/jump/b.mp4", "misc/c.mp4"),
            "'train' and 'val' contain class folders.*'misc' next to them",
        ),
    ],
)
def test_what_is_neither_splits_nor_classes_is_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_source(tree(tmp_path, *names))


@pytest.mark.parametrize("other", ["unlabeled", "train_a", "more"])
def test_a_split_beside_another_folder_of_the_same_classes_is_refused(tmp_path: Path, other: str) -> None:
    names = [f"{top}/{label}/{top}.mp4" for top in ("train", other) for label in ("jump", "wave")]
    with pytest.raises(
        UsageError, match=f"'train' is named like a split and contains 'jump', 'wave', as '{other}' next"
    ):
        read_source(tree(tmp_path, *names))


@pytest.mark.parametrize("tops", [("fold1", "fold2", "fold3"), ("split1_train", "split1_test"), ("tr", "te")])
def test_folders_that_all_contain_the_same_folders_are_named(tmp_path: Path, tops: tuple[str, ...]) -> None:
    names = [f"{top}/{label}/{top}.mp4" for top in tops for label in ("jump", "wave")]
    found = read_source(tree(tmp_path, *names))
    assert {label for label, _ in clips_of(found, tmp_path).values()} == set(tops)  # subjects below classes look alike
    (note,) = found.notes
    assert "each of these folders contains 'jump', 'wave'. If those are the classes, give one of the folders" in note
    one = tree(tmp_path / "one", "jump/ann/a.mp4", "wave/ann/b.mp4", "wave/bob/c.mp4")
    assert not read_source(one).notes


def test_a_link_to_nothing_is_called_that(tmp_path: Path) -> None:
    top = tree(tmp_path, "jump/a.mp4", "wave/b.mp4")
    (top / "run").symlink_to("/disk/that/is/not/mounted")
    with pytest.raises(UsageError, match="run' is a link to '/disk/that/is/not/mounted', which does not exist"):
        read_source(top)


def test_without_a_folder_to_measure_on_a_part_of_the_training_is(tmp_path: Path) -> None:
    found = read_source(tree(tmp_path, "train/jump/a.mp4", "test/jump/b.mp4"))
    divided = found.to_divide()
    assert {split for _, split in clips_of(divided, tmp_path).values()} == {None, "test"}
    assert "a part of the training clips is held out for validation" in divided.notes[-1]
    assert found.to_divide("test") is found
    complete = read_source(tree(tmp_path, "val/jump/c.mp4"))
    assert complete.to_divide() is complete


@pytest.mark.parametrize(
    ("name", "split"),
    [("train", "train"), ("Val", "validation"), ("validation", "validation"), ("videos_val", "validation"),
     ("test2", None), ("test_2", "test"), ("train jump", None), ("video", None), ("tests", None), ("", None)],
)  # fmt: skip
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of_name(name) == split


@pytest.mark.parametrize("names", [("img_00001.jpg", "img_00002.jpg", "img_00010.jpg"), ("9.png", "10.png", "11.png")])
def test_frames_are_refused_with_a_command_that_makes_clips(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = tmp_path / "clips" / "swipe left" / "clip [1] 50%"
    tree(tmp_path / "clips", "wave/a.mp4")
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.fromarray(np.full((61, 81, 3), 80 * number, np.uint8)).save(folder / name, quality=95)
    with pytest.raises(UsageError, match=r"Class 'swipe left' has images and no clip: .* contains 3") as caught:
        read_source(tmp_path / "clips")
    command = shlex.split(str(caught.value)[str(caught.value).index("ffmpeg ") :])
    if shutil.which("ffmpeg") is None:
        absent("no ffmpeg on PATH")
    subprocess.run([*command, "-loglevel", "error"], check=True, stdin=subprocess.DEVNULL)
    with av.open(f"{folder}.mp4") as container:
        means = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert len(means) == len(names)
    assert means == sorted(means), "the frames are in their order"
    shutil.rmtree(folder)
    assert len(read_source(tmp_path / "clips").clips) == 2


def test_frames_beside_clips_are_named(tmp_path: Path) -> None:
    found = read_source(tree(tmp_path, *CLASSES, "jump/clip_2/img_1.jpg", "jump/clip_2/img_2.jpg", "wave/poster.jpg"))
    assert "One folder contains only images, such as" in found.notes[0]
    assert "clip_2' (2)" in found.notes[0]


def test_links_to_class_folders_are_followed(tmp_path: Path) -> None:
    far = tree(tmp_path / "far", "a.mp4", "more/b.mp4")
    top = tree(tmp_path / "top", "wave/c.mp4")
    (top / "jump").symlink_to(far)
    (top / "wave" / "back").symlink_to(top)
    (top / "loop").symlink_to(top)
    found = read_source(top)
    assert set(clips_of(found, top)) == {"jump/a.mp4", "jump/more/b.mp4", "wave/c.mp4"}
    assert any("loop' is a link to a folder that contains it" in note for note in found.notes)
    (top / "jump again").symlink_to(far / "more")
    with pytest.raises(UsageError, match="are the same folder, or one contains the other"):
        read_source(top)


def test_empty_classes_are_named(tmp_path: Path) -> None:
    found = read_source(tree(tmp_path, *CLASSES, "sit/", "stand/notes.txt"))
    assert [note.split(":")[0] for note in found.notes] == [
        "Class 'sit' has no clip",
        "Class 'stand' has no clip (passed over",
    ]
    many = tree(tmp_path / "many", *CLASSES, *(f"{number}/" for number in range(9)))
    assert read_source(many).notes[-1] == "4 more class folders have no clip."
    with pytest.raises(UsageError, match=r"There is no clip.*Passed over: 1 text\."):
        read_source(tree(tmp_path / "none", "stand/notes.txt"))


def test_names_that_only_look_alike_are_told_apart() -> None:
    composed, decomposed = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    (note,) = alike_names([composed, decomposed, "tea"])
    assert r"'cafe\u0301' and 'caf\xe9' have the same name, coded in two ways" in note
    assert "almost the same name" in alike_names(["Jump", "jump"])[0]
    assert class_indices([LabelledClip("a.mp4", decomposed)], ["tea", composed]) == [1]


def test_a_class_whose_name_is_not_text(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(UsageError, match=r"caf\\xe9' has a name that is not UTF-8"):
        read_source(tmp_path)
