"""Interpretation of a folder tree: as classes, or as splits that contain classes."""

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
_FILLER_WORDS = {
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
"""Words that may accompany the name of a split: `videos_train`, `val_256`."""


@dataclass(frozen=True)
class ClassFolder:
    """A folder with the clips of one class, and its split if any."""

    path: str
    label: str
    split: str | None = None


def split_of_name(name: str) -> str | None:
    """Return the split that a folder is named after, or None.

    `Train` and `videos_train` are `train`; `val` is `validation`.
    """
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word and not word.isdecimal()]
    words = [word for word in words if word not in _FILLER_WORDS] if len(words) > 1 else words
    return _SPLIT_OF_NAME.get(words[0]) if len(words) == 1 else None


def class_folders(top: str, folders: Sequence[str], *, all_files: bool) -> list[ClassFolder]:
    """Find the class folders of a tree.

    `train/`, `val/`, `test/` and the like are splits if they contain class folders and have no other siblings. A class
    named `test` among other classes is a class.

    Args:
        top: Root of the tree.
        folders: Subfolders of the root, without skipped ones.
        all_files: Whether to take every file, whatever its name.

    Raises:
        UsageError: Some folders are splits and others are not, so the tree is ambiguous.
    """
    splits = [folder for folder in folders if split_of_name(os.path.basename(folder))]
    others = [folder for folder in folders if folder not in splits]
    if not splits:
        inner = _wrapped_splits(folders, all_files=all_files)  # clips/videos/train/...
        if inner:
            return class_folders(os.path.dirname(inner[0]), inner, all_files=all_files)
        return _splits_below(folders, all_files=all_files)
    inside = {folder: _contents_of(folder, all_files=all_files) for folder in splits}
    with_classes = [folder for folder in splits if inside[folder].folders and not inside[folder].has_files]
    with_clips = [folder for folder in others if _has_clip(folder, all_files=all_files)]
    names = " and ".join(repr(os.path.relpath(folder, top)) for folder in with_classes or splits)
    if with_clips and len(with_classes) < 2:
        if with_classes and (shared := shared_subfolders([*with_classes, *with_clips], all_files=all_files)):
            raise UsageError(
                f"In {top!r}, {names} is named like a split and contains {listed(shared)}, as "
                f"{os.path.basename(with_clips[0])!r} next to it does. If these are the classes, give "
                f"{with_classes[0]!r} or move the other folders away; otherwise give a CSV path,label,group,split."
            )
        return _splits_below(folders, all_files=all_files)
    if with_clips:
        raise UsageError(
            f"In {top!r}, {names} contain class folders, as splits of a data set do, and "
            f"{os.path.basename(with_clips[0])!r} next to them contains clips. Move one of the two away, "
            f"or give a CSV path,label,group,split."
        )
    flat = [folder for folder in splits if inside[folder].has_files]
    if flat:
        raise UsageError(
            f"{os.path.relpath(flat[0], top)!r} in {top!r} is named like a split and contains clips without "
            f"a class folder, so they have no label. Sort them into one folder per class, give a CSV "
            f"path,label,group,split, or give a folder with class folders only"
            f"{f' ({with_classes[0]})' if with_classes else ''}."
        )
    return [
        ClassFolder(folder, os.path.basename(folder), split_of_name(os.path.basename(split)))
        for split in splits
        for folder in inside[split].folders
    ]


def shared_subfolders(folders: Sequence[str], *, all_files: bool) -> list[str]:
    """Return the names of subfolders that all folders have, if there are several of each and no clips beside them.

    They may be the classes, and the folders parts of a data set: `fold1/jump`, `fold1/run`, `fold2/jump`, `fold2/run`.
    """
    if len(folders) < 2:
        return []
    inside = [_contents_of(folder, all_files=all_files) for folder in folders]
    names = [{os.path.basename(inner) for inner in contents.folders} for contents in inside]
    shared = set.intersection(*names)
    return sorted(shared) if len(shared) > 1 and not any(contents.has_files for contents in inside) else []


def listed(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many others there are."""
    shown = ", ".join(map(repr, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _wrapped_splits(folders: Sequence[str], *, all_files: bool) -> list[str]:
    """Return the subfolders of the only folder with clips, if all are named like splits; otherwise none."""
    inside = []
    for folder in folders:
        contents = _contents_of(folder, all_files=all_files)
        if contents.has_files:
            return []
        inside.append(contents)
    for folder, contents in zip(folders, inside, strict=True):
        if len(contents.folders) > 1 and all(split_of_name(os.path.basename(inner)) for inner in contents.folders):
            others = [other for other in folders if other != folder]
            return [] if any(_has_clip(other, all_files=all_files) for other in others) else contents.folders
    return []


@dataclass(frozen=True)
class _Contents:
    """Direct contents of a folder."""

    folders: list[str]
    has_files: bool
    """Whether there are files that may be clips."""


def _contents_of(folder: str, *, all_files: bool) -> _Contents:
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
    return _Contents(folders, has_files)


def _has_clip(folder: str, *, all_files: bool) -> bool:
    return any(kind is None for _, kind in walk(folder, all_files=all_files))


def _splits_below(folders: Sequence[str], *, all_files: bool) -> list[ClassFolder]:
    """Return the class folders, or their subfolders if all of these are splits: `jump/train`, `jump/test`."""
    plain = [ClassFolder(folder, os.path.basename(folder)) for folder in folders]
    if not folders:
        return plain
    found: list[ClassFolder] = []
    for folder in folders:
        inside = _contents_of(folder, all_files=all_files)
        splits = [split_of_name(os.path.basename(inner)) for inner in inside.folders]
        if inside.has_files or not splits or not all(splits):
            return plain
        found += [
            ClassFolder(inner, os.path.basename(folder), split)
            for inner, split in zip(inside.folders, splits, strict=True)
        ]
    return found
