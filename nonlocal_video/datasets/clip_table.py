"""Lists of clips as CSV files, as spreadsheets, scripts and people write them."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import chain

from nonlocal_video.datasets.text_file import open_text
from nonlocal_video.errors import UsageError

COLUMNS = ("path", "label", "group", "split")
"""Columns of a list of clips; the first two are required."""
SEGMENT_COLUMNS = ("path", "start_seconds", "end_seconds", "label", "group", "split", "score", "annotator")
"""Columns of a list of segments; the first four are required."""
MANIFEST_COLUMNS = (
    *COLUMNS, "problem", "duration_seconds", "num_frames", "fps", "width", "height", "sha256", "content",
)  # fmt: skip
"""Columns of a manifest that `check` wrote."""
_SEPARATORS = ",;\t|"
_SAYS_MANIFEST = "sha256"
_SAYS_SEGMENTS = "start_seconds"


def read_rows(
    path: str | os.PathLike[str], *, needed: Sequence[str] = COLUMNS[:2], ignore_columns: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV: the line in which each begins, and its values by column.

    Commas, semicolons, tabs and bars may separate the columns; case and spaces around their names do not matter. Empty
    lines are left out.

    Args:
        path: Text in UTF-8. In a manifest, whose paths are what the disk has, other bytes are kept (surrogateescape).
        needed: Columns that it has to have.
        ignore_columns: Columns that are for other programs.

    Raises:
        UsageError: It is no such text; a column is missing, twice there or unknown; a row has too many fields.
    """
    name = repr(os.fspath(path))
    with open_text(path, errors="surrogateescape") as file:
        numbered = enumerate(file, start=1)
        begins, first = next(((number, line) for number, line in numbered if line.strip()), (1, ""))
        if first.casefold().startswith("sep=") and len(first.strip()) == 5:  # for spreadsheets
            separator = first.strip()[4]
            begins, first = next(numbered, (2, ""))
        else:
            separator = _separator(first)
        lines = chain([first], (line for _, line in numbered))
        reader = csv.reader(lines, delimiter=separator, strict=True)
        try:
            columns = [column.strip().casefold() for column in next(reader, [])]
            _check_columns(name, columns, needed, ignore_columns)
            while True:
                number = reader.line_num + begins
                fields = next(reader, None)
                if fields is None:
                    return
                if any(field.strip() for field in fields):
                    yield number, _row(f"{name}, line {number}", columns, fields)
        except csv.Error as error:
            raise UsageError(
                f"{name}, line {reader.line_num + begins - 1}: this is not valid CSV ({error}). A quotation mark opens "
                f"a field and closes it; one inside a field is written twice."
            ) from error


def is_manifest_header(path: str | os.PathLike[str]) -> bool:
    """Return whether a CSV begins like a manifest that `check` wrote."""
    with open_text(path, errors="surrogateescape") as file:
        return _SAYS_MANIFEST in _columns_of(next((line for line in file if line.strip()), ""))


def is_segment_header(path: str | os.PathLike[str]) -> bool:
    """Return whether a CSV begins like a list of segments."""
    with open_text(path, errors="surrogateescape") as file:
        return _SAYS_SEGMENTS in _columns_of(next((line for line in file if line.strip()), ""))


def has_path_column(path: str | os.PathLike[str]) -> bool:
    """Return whether a table has the column that every list of this project has."""
    with open_text(path, errors="surrogateescape") as file:
        return "path" in _columns_of(next((line for line in file if line.strip() and line[:4] != "sep="), ""))


def _separator(header: str) -> str:
    """The one that gives the most columns that are known; a comma where none does."""
    return max(_SEPARATORS, key=lambda mark: len(_columns_of(header, mark) & {*MANIFEST_COLUMNS, *SEGMENT_COLUMNS}))


def _columns_of(header: str, separator: str | None = None) -> set[str]:
    fields = next(csv.reader([header], delimiter=separator or _separator(header)), [])
    return {field.strip().casefold() for field in fields}


def _check_columns(name: str, columns: list[str], needed: Sequence[str], ignore: Sequence[str]) -> None:
    of_segments = _SAYS_SEGMENTS in columns or _SAYS_SEGMENTS in needed
    usual_columns = SEGMENT_COLUMNS[:6] if of_segments else COLUMNS
    usual = f"its first line should be {','.join(usual_columns)} (the last two may be missing)"
    missing = [column for column in needed if column not in columns]
    if missing:
        raise UsageError(f"{name} has the columns {', '.join(columns) or '(none)'}, not {', '.join(missing)}; {usual}.")
    twice = [column for column, count in Counter(columns).items() if count > 1 and column]
    if twice:
        raise UsageError(f"{name} has the column {', '.join(twice)} twice; name each column once.")
    known = MANIFEST_COLUMNS if _SAYS_MANIFEST in columns else SEGMENT_COLUMNS if of_segments else COLUMNS
    passed = {column.strip().casefold() for column in ignore}
    unknown = [column for column in columns if column and column not in known and column not in passed]
    if unknown:
        named = [f"{column}{_closest(column, known)}" for column in unknown]
        raise UsageError(
            f"{name} has columns that are not known: {', '.join(named)}. Known are {', '.join(known)}. Correct "
            f"those that are misspelt; --ignore-column {unknown[0]} leaves one out that is for other programs."
        )


def _closest(column: str, known: Sequence[str]) -> str:
    close = get_close_matches(column, known, n=1, cutoff=0.6)
    return f" ({close[0]}?)" if close else ""


def _row(where: str, columns: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    more = fields[len(columns) :]
    if any(field.strip() for field in more):
        raise UsageError(f"{where}: more fields than columns; a comma inside a field needs quotes around it.")
    values = dict(zip(columns, fields, strict=False))
    if values.get("", "").strip():
        raise UsageError(f"{where}: {values['']!r} is in a column without a name.")
    values.pop("", None)
    for column, value in values.items():
        if "\0" in value:
            raise UsageError(f"{where}: {column} has a zero byte, so this is not text. Save it as a CSV in UTF-8.")
        if _SAYS_MANIFEST not in columns and not value.isprintable() and _is_not_utf8(value):
            raise UsageError(f"{where}: {column} is not a CSV in UTF-8: {value!r}. Save it as one.")
    return values


def _is_not_utf8(value: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in value)
