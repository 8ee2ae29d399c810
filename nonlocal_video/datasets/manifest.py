"""The manifest: one row per checked clip, as CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from nonlocal_video.datasets.clip_table import MANIFEST_COLUMNS, is_manifest_header, read_rows
from nonlocal_video.datasets.split_folders import TRAIN, VALIDATION
from nonlocal_video.datasets.text_file import open_text
from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.io import atomic_write

FORMATS = (".csv", ".jsonl")
_FOLD = "fold"
_KINDS = {"str": str, "int": int, "float": float}


@dataclass(frozen=True)
class ManifestRow:
    """A checked clip."""

    path: str
    """Path of the file, or URL of object storage; in the file of the manifest, relative to its folder."""
    label: str
    """Class of the clip."""
    group: str | None = None
    """Group of dependent clips, such as those of one person or one source video; None for an independent clip."""
    split: str | None = None
    """Split: `train`, `validation`, `fold1` to `foldK`, or as given by the source; None if the clip is not used."""
    problem: str | None = None
    """Reason why the clip cannot be used: error code and message; None if it can."""
    duration_seconds: float | None = None
    """Duration, in seconds."""
    num_frames: int | None = None
    """Number of frames."""
    fps: float | None = None
    """Mean frame rate, in frames per second."""
    width: int | None = None
    """Width in pixels, after rotation."""
    height: int | None = None
    """Height in pixels, after rotation."""
    sha256: str | None = None
    """SHA-256 of the file's bytes."""
    content: str | None = None
    """Path of the first clip with the same frames, in any container; it identifies the content."""

    def __post_init__(self) -> None:
        if not self.path or not self.label:
            raise UsageError(f"A row of the manifest needs a path and a label; it has {self.path!r}, {self.label!r}.")
        for name in ("duration_seconds", "num_frames", "fps", "width", "height"):
            value = getattr(self, name)
            if value is None and self.problem is None:
                raise UsageError(f"{self.path!r} has no {name}: it was not checked. Write the manifest with `check`.")
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{self.path!r}: {name} = {value} should be above 0.")
        if self.sha256 is not None and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            raise UsageError(f"{self.path!r}: sha256 = {self.sha256!r} should be 64 hexadecimal digits.")
        if self.problem is None and self.sha256 is None:
            raise UsageError(f"{self.path!r} has no sha256: it was not checked. Write the manifest with `check`.")
        if self.problem is not None and self.split is not None:
            raise UsageError(f"{self.path!r} cannot be used ({self.problem}), and yet is in split {self.split!r}.")

    @property
    def usable(self) -> bool:
        """Whether the clip can be used."""
        return self.problem is None


@dataclass(frozen=True, repr=False)
class Manifest:
    """All clips of a data set, including unusable ones."""

    rows: tuple[ManifestRow, ...]
    """Rows, one per clip; paths are unique."""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for row in self.rows:
            if row.path in seen:
                raise UsageError(f"{row.path!r} is in the manifest twice; give each clip once.")
            seen.add(row.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.usable)} of {len(self.rows)} clips usable, {len(self.labels)} classes)"

    @property
    def usable(self) -> tuple[ManifestRow, ...]:
        """Clips that can be used."""
        return tuple(row for row in self.rows if row.usable)

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes of the usable clips, sorted: the order of the network's outputs."""
        return tuple(sorted({row.label for row in self.usable}))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, sorted; folds by number."""
        return tuple(sorted({row.split for row in self.rows if row.split is not None}, key=_in_number_order))

    def of_split(self, split: str) -> tuple[ManifestRow, ...]:
        """Return the usable clips of one split.

        Raises:
            UsageError: The split does not exist.
        """
        rows = tuple(row for row in self.usable if row.split == split)
        if not rows:
            known = ", ".join(self.splits) or "none"
            raise UsageError(f"split = {split!r} is in no row of the manifest; its splits are: {known}.")
        return rows

    def train_val_split(self, validation: str = VALIDATION) -> tuple[tuple[ManifestRow, ...], tuple[ManifestRow, ...]]:
        """Return the training clips and the validation clips.

        Args:
            validation: Name of the validation split. For a fold, such as `fold2`, all other folds are for training;
                otherwise the split `train` is.

        Raises:
            UsageError: The split does not exist or is `train`, or there are no training clips.
        """
        if validation == TRAIN:
            raise UsageError(
                f"validation = {TRAIN!r} is the training split. Choose another; there are: {', '.join(self.splits)}."
            )
        held_out = self.of_split(validation)
        if not is_fold(validation):
            return self.of_split(TRAIN), held_out
        others = [split for split in self.splits if is_fold(split) and split != validation]
        return tuple(row for row in self.usable if row.split in others), held_out


def fold_name(number: int) -> str:
    """Return the split name of a fold, counted from 1."""
    return f"{_FOLD}{number}"


def is_fold(split: str) -> bool:
    """Return whether a split is a fold of cross-validation."""
    return split.startswith(_FOLD) and split.removeprefix(_FOLD).isdecimal()


def write_manifest(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write a manifest as .csv or .jsonl; clips below its folder get relative paths.

    Raises:
        UsageError: The name ends in neither .csv nor .jsonl.
        OutputError: The file cannot be written.
    """
    file_path = Path(path)
    check_format(file_path)
    columns = [field.name for field in fields(ManifestRow)]
    below = Path(os.path.abspath(file_path)).parent
    rows = [asdict(replace(row, **_paths(row, lambda name: _relative(name, below)))) for row in manifest.rows]
    try:
        with atomic_write(file_path) as file:
            # File names are bytes, not always UTF-8; surrogateescape preserves them.
            text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
            if file_path.suffix.lower() == ".csv":
                writer = csv.DictWriter(text, columns)
                writer.writeheader()
                writer.writerows(rows)
            else:
                text.writelines(json.dumps(row) + "\n" for row in rows)
            text.detach()  # flushes, and leaves the file open
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror}. Choose another folder.") from error


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest; paths in it are relative to its folder.

    Raises:
        UsageError: The file is not a manifest, or a row is invalid; the message names the line.
    """
    file_path = Path(path)
    check_format(file_path)
    try:
        if file_path.suffix.lower() == ".csv":
            lines = list(_csv_lines(file_path))
        else:
            with open_text(file_path, errors="surrogateescape") as file:
                lines = list(_json_lines(file))
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error.strerror}. Write it with `check`.") from error
    except UsageError:
        raise
    except (csv.Error, ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is not a manifest: {error}") from error
    rows = []
    for number, values in lines:
        try:
            row = _row(values)
        except UsageError as error:
            raise UsageError(f"{str(path)!r}, line {number}: {error}") from error
        rows.append(replace(row, **_paths(row, lambda name: _absolute(name, file_path.parent))))
    return Manifest(tuple(rows))


def is_manifest(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a manifest written by `check`, not a list of unchecked clips."""
    file_path = Path(path)
    if file_path.suffix.lower() not in FORMATS or not file_path.is_file():
        return False
    return file_path.suffix.lower() == ".jsonl" or is_manifest_header(file_path)


def check_format(path: Path) -> None:
    """Check that a path has the suffix of a manifest.

    Raises:
        UsageError: The suffix is neither .csv nor .jsonl.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"A manifest is a .csv or a .jsonl file; {str(path)!r} ends in {path.suffix or 'neither'}.")


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not is_manifest_header(path):
        raise UsageError(
            f"{str(path)!r} has no column sha256: it is a list of unchecked clips. "
            f"`nonlocal-video check {path.name} --output manifest.csv` makes a manifest of it."
        )
    for number, values in read_rows(path, needed=MANIFEST_COLUMNS):
        yield number, {name: value or None for name, value in values.items()}


def _json_lines(file: Iterable[str]) -> Iterable[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        values = json.loads(line)
        if not isinstance(values, dict):
            raise UsageError(f"line {number} is not a JSON object.")
        yield number, values


def _row(values: dict[str, Any]) -> ManifestRow:
    read: dict[str, Any] = {}
    for field in fields(ManifestRow):
        kind, value = _KINDS[str(field.type).split(" ")[0]], values.get(field.name)
        if value is None:
            read[field.name] = None
            continue
        try:
            read[field.name] = kind(value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{field.name} = {value!r} should be {kind.__name__}.") from error
    return ManifestRow(**{**read, "path": read["path"] or "", "label": read["label"] or ""})


def _paths(row: ManifestRow, change: Callable[[str], str]) -> dict[str, Any]:
    return {"path": change(row.path), "content": row.content and change(row.content)}


def _relative(path: str, folder: Path) -> str:
    if is_remote(path):
        return path
    whole = os.path.abspath(path)
    return os.path.relpath(whole, folder) if Path(whole).is_relative_to(folder) else whole


def _absolute(path: str, folder: Path) -> str:
    return path if is_remote(path) else os.path.abspath(folder / path)


def _in_number_order(split: str) -> tuple[str, int]:
    return (_FOLD, int(split.removeprefix(_FOLD))) if is_fold(split) else (split, 0)
