"""Segments as a CSV `path,start_seconds,end_seconds,label[,group,split,score,annotator]`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from nonlocal_video.annotations.documents import as_number, read_text
from nonlocal_video.annotations.options import ReadOptions, WriteOptions
from nonlocal_video.annotations.segment import (
    OPTIONAL_FIELDS,
    AnnotatedSegment,
    Annotations,
    Collector,
    listed,
    only_spans,
)
from nonlocal_video.errors import UsageError

NEEDED = ("path", "start_seconds", "end_seconds", "label")
COLUMNS = (*NEEDED, *OPTIONAL_FIELDS)
_SEPARATORS = ",;\t|"


def read_table(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a table in text with the line in which each ends, without empty ones.

    The separator is the one that its most divided line among the first twenty has most of.

    Raises:
        UsageError: It is no such text.
    """
    lines = read_text(path).split("\n")
    if lines and re.fullmatch(r"sep=[,;\t|]", lines[0], re.IGNORECASE):
        separator, lines = lines[0][4], ["", *lines[1:]]
    else:
        separator = max(_SEPARATORS, key=lambda mark: max((line.count(mark) for line in lines[:20]), default=0))
    reader = csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True)
    rows = []
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append((reader.line_num, [field.strip() for field in fields]))
    except csv.Error as error:
        raise UsageError(f"{str(path)!r}, line {reader.line_num}: this is not valid CSV ({error}).") from None
    return rows


def read_segments_csv(path: Path, options: ReadOptions) -> Annotations:
    """Read the rows of a segments CSV; a point is a row that starts and ends at one time.

    Raises:
        UsageError: A column is missing.
    """
    rows = read_table(path)
    columns = [name.casefold() for name in rows[0][1]] if rows else []
    if missing := [name for name in NEEDED if name not in columns]:
        raise UsageError(
            f"{str(path)!r} has the columns {', '.join(columns) or '(none)'}, not {', '.join(missing)}; its first line "
            f"should be {','.join(NEEDED)}[,{','.join(OPTIONAL_FIELDS)}], or be that of a table of BORIS."
        )
    found = Collector()
    if others := [name for name in columns if name and name not in COLUMNS]:
        found.notes.append(f"Columns without a place among segments were not read: {listed(others)}.")
    for number, fields in rows[1:]:
        where = f"line {number}"
        values = dict(zip(columns, fields, strict=False))
        start, end = as_number(values.get("start_seconds", "")), as_number(values.get("end_seconds", ""))
        score = as_number(values.get("score", ""))
        if start is None or end is None or start < 0:
            shown = f"{values.get('start_seconds', '')!r} and {values.get('end_seconds', '')!r}"
            found.problems.append(f"{where}: start and end are {shown}; they should be seconds from 0 on, like 12.5.")
        elif score is None and values.get("score"):
            found.problems.append(f"{where}: score = {values['score']!r} should be a number.")
        elif not values.get("path"):
            found.problems.append(f"{where}: the path is missing.")
        else:
            found.add(
                where,
                options.video(path.parent, values["path"]),
                start,
                end,
                values.get("label", ""),
                group=values.get("group") or None,
                split=values.get("split") or None,
                score=score,
                annotator=values.get("annotator") or None,
            )
    return found.result()


def write_segments_csv(segments: Sequence[AnnotatedSegment], options: WriteOptions) -> tuple[str, list[str]]:
    """The CSV, and what was left out of it. Columns that are optional are there if a segment has them."""
    kept, notes = only_spans(segments, "A segments CSV")
    columns = [*NEEDED, *(n for n in OPTIONAL_FIELDS if any(getattr(segment, n) is not None for segment in kept))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for segment in kept:
        cells = [getattr(segment, name) for name in columns]
        cells[0] = options.written_path(segment.path)
        cells[1:3] = [round(time, 6) for time in cells[1:3]]
        writer.writerow(cells)
    return text.getvalue(), notes
