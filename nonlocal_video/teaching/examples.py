"""Examples to teach from: class folders, a list of clips, or a list of segments of longer videos."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nonlocal_video.datasets.clip_table import read_rows
from nonlocal_video.datasets.labelled import alike_names, read_source
from nonlocal_video.datasets.labelled_clip import NONE_OF_THESE, is_none_of_these
from nonlocal_video.datasets.segment_table import (
    ANNOTATION_ENDINGS,
    TABLE_ENDINGS,
    SegmentTable,
    holds_segments,
    read_segments,
)
from nonlocal_video.datasets.split_folders import TRAIN
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.file_kinds import PassedOver
from nonlocal_video.inference.fragment import with_part
from nonlocal_video.inference.object_storage import is_remote


@dataclass(frozen=True)
class Example:
    """A clip, or a segment of a video, with the classes that it shows."""

    path: str
    """Path of the file or URL; of a segment `VIDEO#t=START,END`."""
    labels: tuple[str, ...]
    """Classes that it shows, sorted; empty for `none of these`."""
    group: str | None = None
    """Group of dependent examples, such as those of one person or one source video; None for an independent one."""


@dataclass(frozen=True)
class ExampleSet:
    """Examples in the order of their source, with notes for the user."""

    examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()
    passed_over: PassedOver = field(default_factory=PassedOver)
    """Counts of the skipped files, by kind."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes of the examples, sorted: the order of the model's outputs."""
        return tuple(sorted({label for example in self.examples for label in example.labels}))

    def __len__(self) -> int:
        return len(self.examples)


def read_examples(
    source: str | os.PathLike[str], *, all_files: bool = False, ignore_columns: Sequence[str] = ()
) -> ExampleSet:
    """Read the examples of a folder with one folder a class, or of a list of clips or of segments.

    In a CSV a clip or a segment may have several rows, one a class that it shows. Where there are splits, only those of
    the split `train` and those without one are examples.

    Args:
        source: The folder, or a CSV `path,label[,group][,split]` or `path,start_seconds,end_seconds,label[,group]`,
            or a file of an annotation tool (`read_segments`).
        all_files: Whether to try files of every kind of name in a folder.
        ignore_columns: Columns of the CSV that are for other programs.

    Raises:
        UsageError: Something has no label, a column is missing or unknown, a clip is in two groups, or is both of a
            class and of none, or there are fewer than two classes.

    Example:
        >>> read_examples("examples/").labels
        ('bow', 'wave')
    """
    path = Path(source)
    notes: tuple[str, ...] = ()
    passed_over = PassedOver()
    if path.is_file() and path.suffix.lower() in (*TABLE_ENDINGS, *ANNOTATION_ENDINGS):
        try:
            if holds_segments(path):
                table = read_segments(path, ignore_columns=ignore_columns)
                rows, notes = list(_segment_rows(table)), table.notes
            else:
                rows = list(_clip_rows(path, ignore_columns))
        except OSError as error:
            raise UsageError(f"{str(path)!r} cannot be read: {error.strerror}. Give a file that can be.") from error
    else:
        found = read_source(source, all_files=all_files, ignore_columns=ignore_columns)
        notes, passed_over = found.notes, found.passed_over
        rows = [_Row(clip.path, clip.label, clip.group, clip.split) for clip in found.clips]
    kept = [row for row in rows if row.split in (None, TRAIN)]
    if len(kept) < len(rows):
        others = ", ".join(sorted({str(row.split) for row in rows if row.split not in (None, TRAIN)}))
        notes += (f"{len(rows) - len(kept)} rows are of other splits than {TRAIN} ({others}) and are not taught.",)
    examples = tuple(_joined(kept, str(source)))
    result = ExampleSet(examples, notes, passed_over)
    if len(result.labels) < 2:
        classes = ", ".join(map(repr, result.labels)) or "none"
        raise UsageError(
            f"{str(source)!r} has examples of {len(result.labels)} class(es) ({classes}), and teaching needs two or "
            f"more. Add a class; a folder {NONE_OF_THESE!r} is for clips that show none of them, and is no class."
        )
    return ExampleSet(examples, (*notes, *alike_names(list(result.labels))), passed_over)


@dataclass(frozen=True)
class _Row:
    path: str
    label: str
    group: str | None
    split: str | None


def _clip_rows(path: Path, ignore_columns: Sequence[str]) -> Iterator[_Row]:
    for number, row in read_rows(path, ignore_columns=ignore_columns):
        values = {name: row.get(name, "").strip() for name in ("path", "label", "group", "split")}
        if row.get("problem", "").strip():  # a manifest's row that could not be used
            continue
        if not values["path"] or not values["label"]:
            raise UsageError(f"{str(path)!r}, line {number}: a row needs a path and a label.")
        clip = values["path"] if is_remote(values["path"]) else str(path.parent / values["path"])
        yield _Row(clip, values["label"], values["group"] or None, values["split"] or None)


def _segment_rows(table: SegmentTable) -> Iterator[_Row]:
    for video in table.videos:
        for span in video.spans:
            clip = with_part(video.path, span.start_seconds, span.end_seconds)
            yield _Row(clip, span.label, video.group or video.path, video.split)


def _joined(rows: Sequence[_Row], source: str) -> Iterator[Example]:
    """One example a path, with all of its classes."""
    rows_of: dict[str, list[_Row]] = {}
    for row in rows:
        rows_of.setdefault(row.path, []).append(row)
    for path, same in rows_of.items():
        groups = {row.group for row in same}
        if len(groups) > 1:
            raise UsageError(f"{source!r} has {path!r} in the groups {', '.join(sorted(map(str, groups)))}; give one.")
        twice = [label for label, count in Counter(row.label for row in same).items() if count > 1]
        if twice:
            raise UsageError(f"{source!r} has {path!r} with the label {twice[0]!r} twice; give each row once.")
        labels = tuple(sorted(row.label for row in same if not is_none_of_these(row.label)))
        if labels and len(labels) < len(same):
            raise UsageError(f"{source!r} has {path!r} as {labels[0]!r} and as {NONE_OF_THESE!r}; keep one of them.")
        yield Example(path, labels, same[0].group)
