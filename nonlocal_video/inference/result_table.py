"""Reading of the table of a folder run, in any format."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.csv_cells import unescape_cell
from nonlocal_video.inference.prediction import path_of_printable
from nonlocal_video.inference.results import FORMATS, columns, flatten

_NEVER_EMPTY = ("path", "status", "model", "notes")
"""Text columns in which an empty cell is empty text rather than a missing value."""


def read_table(path: str | os.PathLike[str], *, csv_escape: bool = True) -> list[dict[str, Any]]:
    """Read a table written by `classify --output`.

    Args:
        path: A .csv, .jsonl or .parquet file, or a folder of Parquet files.
        csv_escape: Whether cells of a CSV are escaped, as without `--no-csv-escape`.

    Returns:
        Rows in order, with the columns of the flat table; None for empty cells. `path` is the name in the file system,
        also if it is not UTF-8.

    Raises:
        UsageError: The file is not such a table.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{os.fspath(path)!r} should end in one of {', '.join(FORMATS)}.")
    try:
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        elif suffix == ".jsonl":
            with open(path, encoding="utf-8") as file:
                nested = [json.loads(line) for line in file]
            top_k = max((len(row["top"]) for row in nested), default=1)
            names = columns(top_k, unknown=any("unknown" in row for row in nested))
            rows = [dict.fromkeys(names) | flatten(row, top_k) for row in nested]
        else:
            rows = _read_csv(Path(path), csv_escape)
        return [row | {"path": path_of_printable(row["path"])} for row in rows]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        raise UsageError(f"{os.fspath(path)!r} is not a table of `classify --output`: {error}") from error


def _read_csv(path: Path, escaped: bool) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or ()
        kinds = columns(sum(name.endswith("_index") for name in names), unknown="unknown" in names)
        if list(names) != list(kinds):
            raise ValueError(f"its columns are {', '.join(names)}")
        rows = []
        for cells in reader:
            row: dict[str, Any] = {}
            for name, kind in kinds.items():
                cell = unescape_cell(cells[name]) if escaped and kind is str else cells[name]
                value = cell == "True" if kind is bool else kind(cell) if cell or name in _NEVER_EMPTY else None
                row[name] = None if kind is bool and not cell else value
            rows.append(row)
        return rows
