"""Reading of labelled clips from class folders or a CSV, and matching of their classes with a model's."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from nonlocal_video.datasets.class_tree import read_class_tree
from nonlocal_video.datasets.clip_table import COLUMNS, read_rows
from nonlocal_video.datasets.labelled_clip import LabelledClip, LabelledSource
from nonlocal_video.datasets.segment_table import ANNOTATION_ENDINGS, TABLE_ENDINGS, holds_segments, read_segments
from nonlocal_video.datasets.split_folders import split_of_name
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.fragment import with_part
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.inference.prediction import printable

_LISTED = 10


def read_labelled(source: str | os.PathLike[str], *, split: str | None = None) -> list[LabelledClip]:
    """Return the clips of `read_source` alone."""
    return list(read_source(source, split=split).clips)


def read_source(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    all_files: bool = False,
    ignore_columns: Sequence[str] = (),
) -> LabelledSource:
    """Return the clips of a folder that has one folder a class, or of a CSV `path,label[,group][,split]`.

    Args:
        source: In a folder, every file in a class folder may be a clip, except hidden ones and names of other kinds;
            folders named like splits may lie above the classes. A CSV's paths count from the CSV's own folder, or are
            URLs of object storage. Segments come from a CSV or from a file of an annotation tool (`read_segments`).
        split: Only the clips of this split.
        all_files: Whether to try files of every kind of name.
        ignore_columns: Columns of the CSV that are for other programs.

    Raises:
        UsageError: Something has no label, or two; a column is missing or unknown; the split is unknown; there is no
            clip.
    """
    path = Path(source)
    name = str(source)
    if path.is_dir():
        found = read_class_tree(name, all_files=all_files)
        if split is not None and not found.splits_of_folders:
            raise UsageError(
                f"split = {split!r} needs a CSV with the column 'split', or folders named like splits above those "
                f"of the classes; {name!r} is a folder of classes."
            )
    elif path.is_file() and path.suffix.lower() in (*TABLE_ENDINGS, *ANNOTATION_ENDINGS):
        try:
            found = _of_csv(path, split, ignore_columns)
        except OSError as error:
            raise UsageError(f"{name!r} cannot be read: {error.strerror}. Give a file that can be.") from error
    else:
        raise UsageError(
            f"{name!r} should be a folder with one folder of clips a class, or a CSV file {','.join(COLUMNS)}, or a "
            f"file of an annotation tool ({', '.join(ANNOTATION_ENDINGS)})."
        )
    if not found.clips:
        instead = f" Passed over: {found.passed_over.in_words()}." if found.passed_over else ""
        raise UsageError(f"There is no clip in {name!r}; clips lie in folders named like their class.{instead}")
    return found if split is None else _of_split(found, split, name)


def alike_names(labels: Sequence[str]) -> list[str]:
    """Return a note on classes that are likely the same, as they differ only by case, spaces, `_` or encoding."""
    found: dict[str, set[str]] = {}
    for label in labels:
        found.setdefault(_loosely(label).replace(" ", ""), set()).add(label)
    notes = []
    for names in found.values():
        if len(names) > 1:
            same = len({unicodedata.normalize("NFC", name) for name in names}) == 1
            how = "the same name, coded in two ways (Unicode NFC and NFD)" if same else "almost the same name"
            shown = [ascii(name) if same else repr(name) for name in sorted(names)]
            notes.append(f"Classes {' and '.join(shown)} have {how}; if they are one, rename it.")
    return notes


def class_indices(clips: Sequence[LabelledClip], labels: Sequence[str]) -> list[int]:
    """Return the index of each clip's class in the model's labels.

    The name has to be the same, or the same but for case, and `_` for spaces (`Playing_drums` is `playing drums`).

    Raises:
        UsageError: Labels that the model does not have, with its closest ones, or that fit two of its labels; or a
            model of one class.
    """
    if len(labels) < 2:
        raise UsageError(
            f"The model has the class {labels[0]!r} alone and is always right; there is nothing to measure."
        )
    exact = {label: index for index, label in enumerate(labels)}
    loose: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        loose.setdefault(_loosely(label), []).append(index)
    found: dict[str, int] = {}
    problems = []
    for label, number in Counter(clip.label for clip in clips).items():
        fitting = [exact[label]] if label in exact else loose.get(_loosely(label), [])
        if len(fitting) == 1:
            found[label] = fitting[0]
        elif fitting:
            names = " and ".join(repr(labels[index]) for index in fitting)
            problems.append(f"{label!r} ({number} clips) fits {names}: write one of them exactly")
        else:
            problems.append(f"{label!r} ({number} clips){_closest(label, labels, loose)}")
    if problems:
        shown = [*problems[:_LISTED], *([f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else [])]
        raise UsageError(
            f"{len(problems)} of the clips' labels cannot be matched with the model's {len(labels)}: "
            f"{'; '.join(shown)}. Rename them, leave their clips out, or take a model that has them."
        )
    return [found[clip.label] for clip in clips]


def _loosely(label: str) -> str:
    return " ".join(unicodedata.normalize("NFC", label.replace("_", " ").casefold()).split())


def _closest(label: str, labels: Sequence[str], loose: dict[str, list[int]]) -> str:
    close = get_close_matches(_loosely(label), loose, n=3, cutoff=0.5)
    return f", closest {', '.join(repr(labels[loose[name][0]]) for name in close)}" if close else ""


def _of_split(found: LabelledSource, split: str, name: str) -> LabelledSource:
    wanted = (split_of_name(split) or split) if found.splits_of_folders else split
    clips = [clip for clip in found.clips if clip.split == wanted]
    if not clips:
        known = sorted({str(clip.split) for clip in found.clips})
        raise UsageError(f"split = {split!r} is in no row of {name!r}; there are {', '.join(known)}.")
    return replace(found, clips=clips)


def _of_segments(path: Path, ignore_columns: Sequence[str]) -> LabelledSource:
    """Segments as clips named `VIDEO#t=START,END`; those of one video are one group unless the list says otherwise."""
    table = read_segments(path, ignore_columns=ignore_columns)
    clips = [
        LabelledClip(
            with_part(video.path, span.start_seconds, span.end_seconds),
            span.label,
            video.group or video.path,
            video.split,
        )
        for video in table.videos
        for span in video.spans
    ]
    twice = [name for name, count in Counter(clip.path for clip in clips).items() if count > 1]
    if twice:
        raise UsageError(f"{str(path)!r} has the segment {printable(twice[0])!r} twice; give each segment once.")
    return LabelledSource(clips, table.notes)


def _of_csv(path: Path, split: str | None, ignore_columns: Sequence[str]) -> LabelledSource:
    if holds_segments(path):
        return _of_segments(path, ignore_columns)
    needed = (*COLUMNS[:2], *(["split"] if split is not None else []))
    clips: list[LabelledClip] = []
    line_of: dict[str, int] = {}
    without_split: list[int] = []
    for number, row in read_rows(path, needed=needed, ignore_columns=ignore_columns):
        where = f"{str(path)!r}, line {number}"
        values = {name: row.get(name, "").strip() for name in COLUMNS}
        if not values["path"] or not values["label"]:
            raise UsageError(f"{where}: a row needs a path and a label.")
        clip_path = values["path"] if is_remote(values["path"]) else str(path.parent / values["path"])
        if clip_path in line_of:
            raise UsageError(
                f"{where}: {printable(values['path'])!r} was in line {line_of[clip_path]} before; give each clip once."
            )
        line_of[clip_path] = number
        clips.append(LabelledClip(clip_path, values["label"], values["group"] or None, values["split"] or None))
        if not values["split"] and not row.get("problem", "").strip():  # what a manifest could not use has none
            without_split.append(number)
    notes: tuple[str, ...] = ()
    if without_split and len(without_split) < len(clips) and any(clip.split for clip in clips):
        shown = ", ".join(map(str, without_split[:_LISTED]))
        more = f" and {len(without_split) - _LISTED} more" if len(without_split) > _LISTED else ""
        does = "they are left out" if split is not None else "training divides them by itself"
        notes = (
            f"{len(without_split)} of {len(clips)} rows of {str(path)!r} have no split, beside others that have one "
            f"(line {shown}{more}): {does}.",
        )
    return LabelledSource(clips, notes)
