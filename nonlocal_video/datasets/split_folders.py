"""What the folders of a tree stand for: classes, or the splits of a data set with the classes in them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.file_kinds import kind_of_file, kind_of_folder
from nonlocal_video.inference.walk import walk

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_NAMES = {
    TRAIN: ("train", "training", "trainset"),
    VALIDATION: ("validation", "validate", "valid", "val", "valset", "dev", "devset", "eval", "evaluation"),
    TEST: ("test", "testing", "testset", "holdout", "heldout"),
}
_SPLIT_OF_NAME = {name: split for split, names in _NAMES.items() for name in names}
_BESIDE = {
    "video",
    "videos",
    "clip",
    "clips",
    "data",
    "dataset",
    "set",
    "split",
    "subset",
    "images",
    "frames",
    "rawframes",
}
"""Words that stand beside a split's name: `videos_train`, `val_256`."""


@dataclass(frozen=True)
class ClassFolder:
    """A folder of clips of one class, in one split or in none."""

    path: str
    label: str
    split: str | None = None


def split_of_name(name: str) -> str | None:
    """Return the split that a folder's name stands for: `Train` and `videos_train` are `train`, `val` `validation`."""
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word and not word.isdecimal()]
    words = [word for word in words if word not in _BESIDE] if len(words) > 1 else words
    return _SPLIT_OF_NAME.get(words[0]) if len(words) == 1 else None


def class_folders(top: str, folders: Sequence[str], *, all_files: bool) -> list[ClassFolder]:
    """Find the class folders below a tree's uppermost folders.

    `train/`, `val/`, `test/` and the like are splits if nothing else lies beside them and classes lie in them. A class
    that is called `test`, among other classes, stays one.

    Args:
        top: The tree.
        folders: Its uppermost folders, those that are passed over left out.
        all_files: Whether nothing is passed over for its name.

    Raises:
        UsageError: The folders are partly splits and partly something else, so that either reading would be wrong.
    """
    splits = [folder for folder in folders if split_of_name(os.path.basename(folder))]
    others = [folder for folder in folders if folder not in splits]
    if not splits:
        inner = _wrapped_splits(folders, all_files=all_files)  # clips/videos/train/...
        if inner:
            return class_folders(os.path.dirname(inner[0]), inner, all_files=all_files)
        return _splits_below(folders, all_files=all_files)
    inside = {folder: _look(folder, all_files=all_files) for folder in splits}
    of_classes = [folder for folder in splits if inside[folder].folders and not inside[folder].has_files]
    with_clips = [folder for folder in others if _has_clip(folder, all_files=all_files)]
    if with_clips and len(of_classes) < 2:
        return _splits_below(folders, all_files=all_files)
    names = " and ".join(repr(os.path.relpath(folder, top)) for folder in of_classes or splits)
    if with_clips:
        raise UsageError(
            f"In {top!r} {names} hold class folders, as the splits of a data set do, and "
            f"{os.path.basename(with_clips[0])!r} lies beside them with clips of its own. Move one of the two away, "
            f"or give a CSV path,label,group,split."
        )
    flat = [folder for folder in splits if inside[folder].has_files]
    if flat:
        raise UsageError(
            f"{os.path.relpath(flat[0], top)!r} in {top!r} is named like a split of a data set and holds clips without "
            f"a class folder, so that they have no label. Sort them into one folder a class, give a CSV "
            f"path,label,group,split, or name a folder of class folders alone"
            f"{f' ({of_classes[0]})' if of_classes else ''}."
        )
    return [
        ClassFolder(folder, os.path.basename(folder), split_of_name(os.path.basename(split)))
        for split in splits
        for folder in inside[split].folders
    ]


def _wrapped_splits(folders: Sequence[str], *, all_files: bool) -> list[str]:
    """The folders in the only one that has clips, if all are named like splits."""
    inside = []
    for folder in folders:
        look = _look(folder, all_files=all_files)
        if look.has_files:
            return []
        inside.append(look)
    for folder, look in zip(folders, inside, strict=True):
        if len(look.folders) > 1 and all(split_of_name(os.path.basename(inner)) for inner in look.folders):
            others = [other for other in folders if other != folder]
            return [] if any(_has_clip(other, all_files=all_files) for other in others) else look.folders
    return []


@dataclass(frozen=True)
class _Look:
    """What lies directly in a folder."""

    folders: list[str]
    has_files: bool
    """Some that may be clips."""


def _look(folder: str, *, all_files: bool) -> _Look:
    folders, has_files = [], False
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UsageError(f"{folder!r} cannot be read: {error.strerror}.") from error
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            folders += [path] if all_files or not kind_of_folder(name) else []
        else:
            has_files = has_files or all_files or not kind_of_file(name)
    return _Look(folders, has_files)


def _has_clip(folder: str, *, all_files: bool) -> bool:
    return any(kind is None for _, kind in walk(folder, all_files=all_files))


def _splits_below(folders: Sequence[str], *, all_files: bool) -> list[ClassFolder]:
    """Class folders, or what is in them if every one holds nothing but splits: `jump/train`, `jump/test`."""
    plain = [ClassFolder(folder, os.path.basename(folder)) for folder in folders]
    if not folders:
        return plain
    found: list[ClassFolder] = []
    for folder in folders:
        inside = _look(folder, all_files=all_files)
        splits = [split_of_name(os.path.basename(inner)) for inner in inside.folders]
        if inside.has_files or not splits or not all(splits):
            return plain
        found += [
            ClassFolder(inner, os.path.basename(folder), split)
            for inner, split in zip(inside.folders, splits, strict=True)
        ]
    return found
