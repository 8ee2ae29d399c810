"""Labelled clips: class folders or a CSV, and the model's names for their classes."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.files import Selection, find_files
from nonlocal_video.inference.remote import is_remote

COLUMNS = ("path", "label", "group", "split")
"""Of a CSV; the first two are needed, others are not looked at."""
_LISTED = 10
_NOT_HIDDEN = Selection(exclude=(".*",))


@dataclass(frozen=True)
class LabelledClip:
    """One clip and what it shows."""

    path: str
    label: str
    group: str | None = None
    """Clips that are not independent of each other share it: those of one person, or cut from one video."""
    split: str | None = None


def read_labelled(source: str | os.PathLike[str], *, split: str | None = None) -> list[LabelledClip]:
    """The clips of a folder that has one folder a class, or of a CSV `path,label[,group][,split]`.

    Args:
        source: In a folder, every file in a class folder is a clip, except those whose name begins with a dot. A CSV's
            paths count from the CSV's own folder, or are URLs of object storage.
        split: Only the CSV's rows of this split.

    Raises:
        UsageError: Something has no label, or two; a column is missing; the split is unknown; there is no clip.
    """
    path = Path(source)
    if path.is_dir():
        if split is not None:
            raise UsageError(f"split = {split!r} needs a CSV with the column 'split'; {str(source)!r} is a folder.")
        clips = list(_of_class_folders(path))
    elif path.suffix.lower() == ".csv" and path.is_file():
        clips = _of_csv(path, split)
    else:
        raise UsageError(
            f"{str(source)!r} should be a folder with one folder of clips a class, or a CSV file {','.join(COLUMNS)}."
        )
    if not clips:
        raise UsageError(f"There is no clip in {str(source)!r}; clips lie in folders named like their class.")
    return clips


def class_indices(clips: Sequence[LabelledClip], labels: Sequence[str]) -> list[int]:
    """Each clip's class as an index into the model's labels.

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
    return " ".join(label.replace("_", " ").casefold().split())


def _closest(label: str, labels: Sequence[str], loose: dict[str, list[int]]) -> str:
    close = get_close_matches(_loosely(label), loose, n=3, cutoff=0.5)
    return f", closest {', '.join(repr(labels[loose[name][0]]) for name in close)}" if close else ""


def _of_class_folders(top: Path) -> Iterator[LabelledClip]:
    entries = sorted(entry for entry in top.iterdir() if not entry.name.startswith("."))
    beside = [entry for entry in entries if not entry.is_dir()]
    if beside:
        a_csv = next((entry for entry in beside if entry.suffix.lower() == ".csv"), None)
        advice = f"To go by {a_csv.name}, name it instead" if a_csv else "Move it into its class's folder"
        raise UsageError(f"{str(beside[0])!r} lies in no class folder and so has no label. {advice}.")
    for folder in entries:
        for file in find_files([folder], selection=_NOT_HIDDEN):
            yield LabelledClip(file, folder.name)


def _of_csv(path: Path, split: str | None) -> list[LabelledClip]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets write a byte order mark
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            missing = [
                name for name in (*COLUMNS[:2], *(["split"] if split is not None else [])) if name not in columns
            ]
            if missing:
                raise UsageError(
                    f"{str(path)!r} has the columns {', '.join(columns) or '(none)'}, not {', '.join(missing)}; "
                    f"its first line should be {','.join(COLUMNS)} (the last two may be missing)."
                )
            clips = _rows(path, reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{str(path)!r} is not a CSV in UTF-8: {error}. Save it as one.") from error
    if split is None:
        return clips
    of_split = [clip for clip in clips if clip.split == split]
    if not of_split:
        known = sorted({str(clip.split) for clip in clips})
        raise UsageError(f"split = {split!r} is in no row of {str(path)!r}; there are {', '.join(known)}.")
    return of_split


def _rows(path: Path, reader: csv.DictReader[str]) -> list[LabelledClip]:
    clips: list[LabelledClip] = []
    line_of: dict[str, int] = {}
    for row in reader:
        where = f"{str(path)!r}, line {reader.line_num}"
        if None in row:
            raise UsageError(f"{where}: more fields than columns; a comma inside a field needs quotes around it.")
        values = {name: (row.get(name) or "").strip() for name in COLUMNS}
        if not values["path"] or not values["label"]:
            raise UsageError(f"{where}: a row needs a path and a label.")
        clip_path = values["path"] if is_remote(values["path"]) else str(path.parent / values["path"])
        if clip_path in line_of:
            raise UsageError(
                f"{where}: {values['path']!r} was in line {line_of[clip_path]} before; give each clip once."
            )
        line_of[clip_path] = reader.line_num
        clips.append(LabelledClip(clip_path, values["label"], values["group"] or None, values["split"] or None))
    return clips
