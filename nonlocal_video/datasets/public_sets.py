"""Public data sets as they lie on disk, as lists of clips with groups that do not leak between splits.

Layouts are those of each data set's own archives. A group holds the clips that were cut from one source: two clips of
one film in training and validation would measure memory. A list of clips whose files are missing is a common state of a
data set that was collected from the web, so that missing clips are listed.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nonlocal_video.datasets.clip_files import ClipFiles, find_file
from nonlocal_video.datasets.split_folders import TEST, TRAIN, VALIDATION, split_of_name
from nonlocal_video.datasets.text_file import open_text
from nonlocal_video.errors import UsageError
from nonlocal_video.io import atomic_write

_UCF101_NAME = re.compile(r"v_(?P<label>\w+)_(?P<group>g\d+)_c\d+", re.IGNORECASE)
_KINETICS_NAME = re.compile(r"(?P<id>.{11})(?:_\d{6}_\d{6})?$")
_HMDB51_SPLITS = {"1": TRAIN, "2": TEST}
_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "'")


@dataclass(frozen=True)
class PublicClip:
    """One clip of a public data set."""

    path: str
    label: str
    group: str | None = None
    split: str | None = None


@dataclass
class PublicSet:
    """The clips that are there, those that are listed and are not, and what else there is to say."""

    files: ClipFiles
    clips: list[PublicClip] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    without_label: int = 0

    def add(self, names: Sequence[str], label: str, group: str | None, split: str | None) -> None:
        """Add a clip of a list, if there is a file that has one of its possible names."""
        path = next(filter(None, map(self.files.find, names)), None)
        if path is None:
            self.missing.append(names[0])
        else:
            self.clips.append(PublicClip(path, label, group, split))


@dataclass(frozen=True)
class _DataSet:
    read: Callable[[Path, int], PublicSet]
    num_splits: int
    """Official divisions to choose from by number; 1 where there is just one."""


def read_public_set(name: str, root: str | os.PathLike[str], *, split: int = 1) -> PublicSet:
    """Read a public data set on disk.

    Args:
        name: One of `PUBLIC_SETS`.
        root: Folder that holds its clips and lists, as its archives unpack.
        split: Which of the official divisions, from 1 on, for UCF101 and HMDB51.

    Raises:
        UsageError: An unknown name or division, or a folder without this data set.

    Example:
        >>> found = read_public_set("ucf101", "/data/ucf101", split=2)  # doctest: +SKIP
        >>> len(found.clips), len(found.missing)  # doctest: +SKIP
        (13320, 0)
    """
    if name not in PUBLIC_SETS:
        raise UsageError(f"{name!r} should be one of {', '.join(PUBLIC_SETS)}.")
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{str(root)!r} is not a folder; name the one in which {name} was unpacked.")
    chosen = PUBLIC_SETS[name]
    if not 1 <= split <= chosen.num_splits:
        allowed = f"from 1 to {chosen.num_splits}" if chosen.num_splits > 1 else "1: it has one division only"
        raise UsageError(f"split = {split} of {name} should be {allowed}.")
    found = chosen.read(root, split)
    if not found.clips and not found.missing:
        raise UsageError(
            f"{str(root)!r} holds neither lists nor clips of {name}; docs/annotations.md shows its layout."
        )
    if found.without_label:
        found.notes.append(
            f"{found.without_label} clips of the test set have no label in the lists; they were left out."
        )
    if found.files.repeated:
        example = min(found.files.repeated)
        found.notes.append(
            f"{len(found.files.repeated)} clips are there more than once ({example} ...); one was taken."
        )
    found.notes += _torn_groups(found.clips)
    return found


def write_clip_list(path: str | os.PathLike[str], clips: Sequence[PublicClip]) -> list[str]:
    """Write a CSV `path,label[,group][,split]` as `check`, `train` and `evaluate` read it; paths count from its folder.

    Returns:
        What is not in it: clips whose names are not text.
    """
    path = Path(path)
    columns = ["path", "label", *(n for n in ("group", "split") if any(getattr(clip, n) for clip in clips))]
    unwritable = []
    with atomic_write(path) as file:
        lines = [columns]
        for clip in clips:
            relative = os.path.relpath(clip.path, path.parent)
            relative = f"./{relative}" if relative.startswith(_RUN_BY_SPREADSHEETS) else relative
            if not _is_text(relative):
                unwritable.append(os.fsencode(clip.path).decode("utf-8", "backslashreplace"))
                continue
            lines.append([relative, *(getattr(clip, name) or "" for name in columns[1:])])
        for line in lines:
            file.write(_csv_line(line).encode())
    if not unwritable:
        return []
    return [f"{len(unwritable)} names are no text in UTF-8 and were left out; rename them: {unwritable[0]} ..."]


def _ucf101(root: Path, split: int) -> PublicSet:
    """Lists `trainlist01.txt`, whose paths hold class, group and clip; a group is one of its class alone.

    The folder HandstandPushups holds files that are called HandStandPushups.
    """
    files = ClipFiles(root, ignore_case=True)
    found = PublicSet(files)
    lists = {
        TRAIN: find_file(root, f"trainlist{split:02d}.txt"),
        TEST: find_file(root, f"testlist{split:02d}.txt"),
    }
    for name, path in lists.items():
        for line in _lines(path) if path is not None else ():
            entry = re.sub(r"\s+\d+$", "", line)  # the number of the class, which lists of tests do not have
            label, _, file = entry.rpartition("/")
            found.add([entry], label, _ucf101_group(file, label), name)
    if not any(lists.values()):
        for clip in files.all():
            label = Path(clip).parent.name
            if _UCF101_NAME.match(Path(clip).stem):
                found.clips.append(PublicClip(clip, label, _ucf101_group(Path(clip).name, label), None))
        found.notes.append(f"No trainlist{split:02d}.txt: the clips have groups, but no split.")
    return found


def _ucf101_group(file: str, label: str) -> str | None:
    match = _UCF101_NAME.match(file)
    return f"{label} {match['group']}" if match else None


def _hmdb51(root: Path, split: int) -> PublicSet:
    """Lists `CLASS_test_splitN.txt` with 1 for training, 2 for testing, 0 for neither; a group is a source film."""
    files = ClipFiles(root)
    found = PublicSet(files)
    ending = f"_test_split{split}.txt"
    lists = [path for path in map(Path, files.others) if path.name.endswith(ending)]
    unused = 0
    for path in lists:
        label = path.name.removesuffix(ending)
        for line in _lines(path):
            name, _, number = line.rpartition(" ")
            if number not in _HMDB51_SPLITS:
                unused += number == "0"
                continue
            name = name.strip()
            found.add([f"{label}/{name}"], label, _hmdb51_group(name, label), _HMDB51_SPLITS[number])
    if unused:
        found.notes.append(f"{unused} clips are in neither part of split {split}; they were left out.")
    if not lists:
        for clip in files.all():
            label = Path(clip).parent.name
            if f"_{label}_" in Path(clip).name:
                found.clips.append(PublicClip(clip, label, _hmdb51_group(Path(clip).name, label), None))
        found.notes.append(f"No lists *{ending}: the clips have groups, but no split.")
    return found


def _hmdb51_group(name: str, label: str) -> str:
    """The film: what stands before the class, which stands before body parts, camera and people."""
    film, mark, _ = name.rpartition(f"_{label}_")
    return film if mark else os.path.splitext(name)[0]


def _kinetics(root: Path, split: int) -> PublicSet:
    """Lists `train.csv`, ... of label, YouTube video and seconds; clips `SPLIT/LABEL/ID_START_END.mp4` or flat."""
    files = ClipFiles(root)
    found = PublicSet(files)
    num_lists = 0
    for path in map(Path, files.others):
        if path.suffix != ".csv":
            continue
        with open_text(path) as file:
            rows = csv.DictReader(file)
            if not {"youtube_id", "time_start", "time_end"} <= set(rows.fieldnames or ()):
                continue
            num_lists += 1
            for row in rows:
                label, video = (row.get("label") or "").strip().strip('"'), row["youtube_id"].strip()
                if not label:
                    found.without_label += 1
                    continue
                try:
                    start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
                except (TypeError, ValueError):
                    raise UsageError(
                        f"{str(path)!r}, line {rows.line_num}: time_start, time_end are no seconds."
                    ) from None
                named = split_of_name(row.get("split") or path.stem)
                found.add([f"{video}_{start:06d}_{end:06d}", video], label, video, named)
    if not num_lists:
        for clip in files.all():
            if match := _KINETICS_NAME.match(Path(clip).stem):
                parts = Path(clip).relative_to(root).parts
                named = next(filter(None, map(split_of_name, parts[:-2])), None)
                label = parts[-2].replace("_", " ") if len(parts) > 1 else ""
                if label and split_of_name(label) is None:
                    found.clips.append(PublicClip(clip, label, match["id"], named))
        found.notes.append("No list with a column youtube_id: labels and splits are the folders' names.")
    return found


def _ssv2(root: Path, split: int) -> PublicSet:
    """Lists in JSON; the class is the template without its brackets. Who filmed a clip is not published: no groups."""
    found = PublicSet(ClipFiles(root))
    known = _json(_ssv2_list(root, "labels"))
    for name in (TRAIN, VALIDATION, TEST):
        entries = _json(_ssv2_list(root, name))
        for entry in entries if isinstance(entries, list) else ():
            template = re.sub(r"[\[\]]", "", str(entry.get("template") or ""))
            if not template:
                found.without_label += 1
            elif isinstance(known, dict) and template not in known:
                raise UsageError(
                    f"Something-Something's class {template!r} is not in labels.json; get both lists again."
                )
            else:
                found.add([str(entry.get("id"))], template, None, name)
    return found


def _ssv2_list(root: Path, name: str) -> Path | None:
    return find_file(root, f"something-something-v2-{name}.json", f"{name}.json")


def _jester(root: Path, split: int) -> PublicSet:
    """Lists `id;label`; a clip is a folder of JPEGs, 00001.jpg and so on."""
    found = PublicSet(ClipFiles(root))
    folders = {path.name: path for path in _folders(root, depth=2) if path.name.isdecimal()}
    for name in (TRAIN, VALIDATION, TEST):
        path = find_file(root, f"jester-v1-{name}.csv")
        for line in _lines(path) if path is not None else ():
            clip, mark, label = line.partition(";")
            if not mark or not label.strip():
                found.without_label += 1
            elif clip not in folders:
                found.missing.append(clip)
            else:
                found.clips.append(PublicClip(str(folders[clip]), label.strip(), None, name))
    if found.clips:
        found.notes.append(
            "The clips are folders of JPEGs, at 12 frames a second as the data set's page says: give the commands that "
            "read the table --frames-per-second 12."
        )
    return found


def _folders(root: Path, depth: int) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path.is_dir():
            yield path
            if depth > 1:
                yield from _folders(path, depth - 1)


def _lines(path: Path) -> Iterator[str]:
    with open_text(path) as file:
        yield from (line.strip() for line in file if line.strip())


def _json(path: Path | None) -> Any:
    if path is None:
        return None
    with open_text(path) as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise UsageError(f"{str(path)!r} is not valid JSON ({error}); get it again.") from None


def _torn_groups(clips: Sequence[PublicClip]) -> list[str]:
    splits: dict[str, set[str]] = {}
    for clip in clips:
        if clip.group and clip.split:
            splits.setdefault(clip.group, set()).add(clip.split)
    torn = Counter(len(found) > 1 for found in splits.values())[True]
    if not torn:
        return []
    return [
        f"{torn} of {len(splits)} sources have clips in more than one of the official splits: what is measured there "
        f"is not wholly independent of training."
    ]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_line(cells: Sequence[str]) -> str:
    quoted = [f'"{cell.replace(chr(34), chr(34) * 2)}"' if re.search('[",\n\r]', cell) else cell for cell in cells]
    return ",".join(quoted) + "\n"


PUBLIC_SETS = {
    "ucf101": _DataSet(_ucf101, num_splits=3),
    "hmdb51": _DataSet(_hmdb51, num_splits=3),
    "kinetics": _DataSet(_kinetics, num_splits=1),
    "ssv2": _DataSet(_ssv2, num_splits=1),
    "jester": _DataSet(_jester, num_splits=1),
}
