"""Cells of tables that people open in spreadsheets, which take text that begins like a formula for one.

Such a cell gets an apostrophe before it, as OWASP's page on CSV injection advises; so does one that begins with
apostrophes before that, which makes the way back unambiguous.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

_ESCAPED = re.compile(r"'*[=+\-@\t\r]")


def escape_cell(value: Any) -> Any:
    """Put an apostrophe before text that begins with = + - @, a tab or a carriage return; numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and _ESCAPED.match(value) else value


def unescape_cell(text: str) -> str:
    """Take away what `escape_cell` put there."""
    return text[1:] if text.startswith("'") and _ESCAPED.match(text) else text


def write_rows(
    file: IO[str],
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    escape: bool = True,
    lineterminator: str = "\r\n",
) -> None:
    """Write a table with a header.

    Args:
        file: Opened with `newline=""`.
        columns: Names in order; they are text like any other.
        rows: Values by column; None is an empty cell.
        escape: False writes text as it is.
        lineterminator: Of each row.
    """
    writer = csv.writer(file, lineterminator=lineterminator)
    in_a_cell = escape_cell if escape else lambda value: value
    writer.writerow(map(in_a_cell, columns))
    writer.writerows([in_a_cell(row.get(name)) for name in columns] for row in rows)
