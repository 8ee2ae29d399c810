"""CSV cells that are safe in spreadsheets, which interpret text that starts like a formula.

Such a cell gets a leading apostrophe, as OWASP advises against CSV injection. So does a cell with apostrophes before
the formula, which makes the escaping reversible.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

_ESCAPED = re.compile(r"'*[=+\-@\t\r]")


def escape_cell(value: Any) -> Any:
    """Put an apostrophe before text that starts with = + - @, a tab or a carriage return; numbers are unchanged."""
    return f"'{value}" if isinstance(value, str) and _ESCAPED.match(value) else value


def unescape_cell(text: str) -> str:
    """Remove the apostrophe that `escape_cell` added."""
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
        file: Text file, opened with `newline=""`.
        columns: Column names in order; they are escaped as well.
        rows: Values by column; None is an empty cell.
        escape: Whether to escape text that looks like a formula.
        lineterminator: Line ending of each row.
    """
    writer = csv.writer(file, lineterminator=lineterminator)
    to_cell = escape_cell if escape else lambda value: value
    writer.writerow(map(to_cell, columns))
    writer.writerows([to_cell(row.get(name)) for name in columns] for row in rows)
