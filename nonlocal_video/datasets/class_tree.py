"""Clips in folders named after their class."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nonlocal_video.datasets.labelled_clip import LabelledClip, LabelledSource
from nonlocal_video.datasets.split_folders import (
    TEST,
    TRAIN,
    VALIDATION,
    ClassFolder,
    class_folders,
    listed,
    shared_subfolders,
)
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.file_kinds import PICTURES, PassedOver, kind_of_file, kind_of_folder
from nonlocal_video.inference.prediction import printable
from nonlocal_video.inference.walk import walk

_LISTED = 5
_MIN_FRAMES = 2
"""Number of images from which a folder without clips is taken for extracted frames."""


_NUMBER = re.compile(r"(\d+)(?=\D*$)")


@dataclass
class _ImageSummary:
    """Summary of the images in one folder, without all their names."""

    first: str
    count: int = 0
    lengths: set[int] = field(default_factory=set)
    lowest: int | None = None
    """Smallest frame number: the last number in each name."""

    def add(self, name: str) -> None:
        self.count += 1
        self.lengths.add(len(name))
        if match := _NUMBER.search(name):
            self.lowest = int(match[1]) if self.lowest is None else min(self.lowest, int(match[1]))


@dataclass
class _Found:
    """Contents of one class folder."""

    clips: list[str] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    images: dict[str, _ImageSummary] = field(default_factory=dict)
    """Summary of the images, by folder."""

    @property
    def frame_folders(self) -> list[str]:
        """Folders that contain images but no clip."""
        with_clips = {os.path.dirname(clip) for clip in self.clips}
        return [
            folder for folder, images in self.images.items() if images.count >= _MIN_FRAMES and folder not in with_clips
        ]


def read_class_tree(top: str, *, all_files: bool) -> LabelledSource:
    """Find the clips of a folder with one subfolder per class, or with such folders in one subfolder per split.

    Hidden files and files that are not videos by name are skipped, as in every folder run.

    Args:
        top: Path of the folder.
        all_files: Whether to take every file, whatever its name.

    Raises:
        UsageError: A file has no class, a class folder occurs twice, a class has frames instead of clips, or the
            folders are neither classes nor splits.
    """
    passed_over = PassedOver()
    folders: list[str] = []
    notes: list[str] = []
    real_top = os.path.realpath(top)
    for name in sorted(os.listdir(top)):
        path = os.path.join(top, name)
        is_folder = os.path.isdir(path)
        kind = None if all_files else (kind_of_folder if is_folder else kind_of_file)(name)
        if kind:
            passed_over.add(kind)
            if name.lower().endswith(".csv"):
                notes.append(
                    f"{path!r} was not read, as {top!r} is read by its folders. To use the list, give its path instead."
                )
        elif is_folder and (real_top + os.sep).startswith(os.path.realpath(path).rstrip(os.sep) + os.sep):
            notes.append(f"{path!r} is a link to a folder that contains it; it was not followed.")
        elif is_folder:
            folders.append(path)
        elif not os.path.exists(path):
            raise UsageError(
                f"{printable(path)!r} is a link to {printable(os.readlink(path))!r}, which does not exist. "
                f"Restore the folder, or remove the link."
            )
        else:
            raise UsageError(
                f"{printable(path)!r} is in no class folder and so has no label. Move it into the folder of its class."
            )
    classes = class_folders(top, folders, all_files=all_files)
    _check_names(classes)
    found = _search(classes, all_files=all_files)
    for one in found:
        passed_over.update(one.passed_over)
    _refuse_frames(top, classes, found)
    for kind in _kinds_outside(top, folders, classes, all_files=all_files):
        passed_over.add(kind)
    clips = [
        LabelledClip(path, folder.label, split=folder.split)
        for folder, one in zip(classes, found, strict=True)
        for path in one.clips
    ]
    notes += [
        *_splits_note(classes, found),
        *_parts_note(classes, all_files=all_files),
        *_empty_class_notes(classes, found),
        *_frames_note(found),
    ]
    return LabelledSource(tuple(clips), tuple(notes), passed_over, splits_of_folders=any(one.split for one in classes))


def _check_names(classes: Sequence[ClassFolder]) -> None:
    """Check that class names are UTF-8 and that no folder occurs twice."""
    real: dict[str, ClassFolder] = {}
    for folder in classes:
        if printable(folder.label) != folder.label:
            raise UsageError(
                f"The class folder '{printable(folder.path)}' has a name that is not UTF-8 and cannot be a label. "
                f"Rename it."
            )
        _refuse_same_folder(real.setdefault(os.path.realpath(folder.path), folder), folder)
    for path, folder in real.items():
        for parent in Path(path).parents:
            _refuse_same_folder(real.get(str(parent), folder), folder)


def _refuse_same_folder(one: ClassFolder, other: ClassFolder) -> None:
    if one is not other:
        raise UsageError(
            f"{one.path!r} and {other.path!r} are the same folder, or one contains the other (by a link), so "
            f"clips would occur twice. Remove one of them."
        )


def _search(classes: Sequence[ClassFolder], *, all_files: bool) -> list[_Found]:
    roots = {os.path.realpath(folder.path) for folder in classes}
    found = []
    for folder in classes:
        one = _Found()
        for path, kind in walk(folder.path, roots=roots, all_files=all_files):
            if kind is None:
                one.clips.append(path)
                continue
            one.passed_over.add(kind)
            if kind == PICTURES:
                above, name = os.path.split(path)
                one.images.setdefault(above, _ImageSummary(name)).add(name)
        found.append(one)
    return found


def _kinds_outside(
    top: str, folders: Sequence[str], classes: Sequence[ClassFolder], *, all_files: bool
) -> Iterator[str]:
    """Yield the kinds of files skipped outside of class folders, such as `train/README.md` or `annotations/a.json`."""
    above = {os.path.dirname(one.path) for one in classes} - {top}
    above |= {os.path.dirname(folder) for folder in above} - {top}  # clips/videos/train/jump
    of_classes = {os.path.realpath(one.path) for one in classes}
    for folder in folders:
        if folder in above:
            yield from (kind for path, kind in walk(folder, roots=set(of_classes)) if kind and not all_files)
        elif all(one.path != folder for one in classes):
            yield from (kind for _, kind in walk(folder, all_files=all_files) if kind)


def _refuse_frames(top: str, classes: Sequence[ClassFolder], found: Sequence[_Found]) -> None:
    """Check that no class has images instead of clips."""
    for folder, one in zip(classes, found, strict=True):
        if one.clips or not one.frame_folders:
            continue
        example = one.frame_folders[0]
        images, number = one.images[example], sum(len(other.frame_folders) for other in found)
        many = f" ({number:,} such folders in {top!r})" if number > 1 else ""
        raise UsageError(
            f"Class {folder.label!r} has images and no clip: {printable(example)!r} contains {images.count:,}, "
            f"such as {printable(images.first)!r}{many}. If they are frames of a clip, make clips of them, each "
            f"from its folder at the original frame rate: {_ffmpeg(example, images, folder.path)}"
        )


def _ffmpeg(folder: str, images: _ImageSummary, class_folder: str) -> str:
    """Return the command that makes a clip of a folder's frames."""
    name, output = images.first, (folder if folder != class_folder else os.path.join(folder, "clip")) + ".mp4"
    match = _NUMBER.search(name)
    if match and len(images.lengths) > 1:  # 9.jpg, 10.jpg: sorted by number
        pattern = f"{name[: match.start()]}\0d{name[match.end() :]}"
        source = os.path.join(folder, pattern).replace("%", "%%").replace("\0", "%")
        given = f"-start_number {images.lowest} -i {shlex.quote(source)}"
    else:
        whole = re.sub(r"([\\*?\[\]{}])", r"\\\1", folder)
        given = f"-pattern_type glob -i {shlex.quote(os.path.join(whole, '*' + os.path.splitext(name)[1]))}"
    even = "pad=ceil(iw/2)*2:ceil(ih/2)*2"
    return f"ffmpeg -framerate 25 {given} -vf {shlex.quote(even)} -pix_fmt yuv420p {shlex.quote(output)}"


def _splits_note(classes: Sequence[ClassFolder], found: Sequence[_Found]) -> list[str]:
    if not any(folder.split for folder in classes):
        return []
    number: Counter[str] = Counter()
    for folder, one in zip(classes, found, strict=True):
        number[folder.split or ""] += len(one.clips)
    purpose = {TRAIN: "for training", VALIDATION: "for validation", TEST: "held out"}
    words = [f"{split} ({number[split]} clips, {purpose[split]})" for split in purpose if split in number]
    return [f"The folders are read as the splits of a data set: {', '.join(words)}."]


def _parts_note(classes: Sequence[ClassFolder], *, all_files: bool) -> list[str]:
    """Return a note if the classes may be parts of a data set, which contain the classes."""
    paths = [folder.path for folder in classes if folder.split is None]
    if len(paths) < len(classes) or not (shared := shared_subfolders(paths, all_files=all_files)):
        return []
    return [
        f"The classes are {listed([folder.label for folder in classes])}, and each of these folders contains "
        f"{listed(shared)}. If those are the classes, give one of the folders, or a CSV path,label,group,split."
    ]


def _empty_class_notes(classes: Sequence[ClassFolder], found: Sequence[_Found]) -> list[str]:
    notes = []
    for folder, one in zip(classes, found, strict=True):
        if not one.clips:
            instead = f" (passed over: {one.passed_over.in_words()})" if one.passed_over else ""
            in_split = f" in {folder.split}" if folder.split else ""
            notes.append(f"Class {folder.label!r} has no clip{in_split}{instead}: {folder.path!r} is left out.")
    more = len(notes) - _LISTED
    return [*notes[:_LISTED], *([f"{more} more class folders have no clip."] if more > 0 else [])]


def _frames_note(found: Sequence[_Found]) -> list[str]:
    folders = [(folder, one.images[folder].count) for one in found for folder in one.frame_folders]
    if not folders:
        return []
    example, number = folders[0]
    many = f"{len(folders)} folders contain" if len(folders) > 1 else "One folder contains"
    return [
        f"{many} only images, such as {printable(example)!r} ({number:,}). If they are frames of further clips, "
        f"those clips are missing; encode them as videos first."
    ]
