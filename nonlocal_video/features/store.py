"""The output of a run for features: a journal of what is done, the numbers beside it, and the table made of both.

The features of a file are appended to `OUTPUT.values` and then noted in `OUTPUT.journal`, so a killed run loses those
of the file in hand alone. The table is written atomically at the end, and the values are deleted: a later run takes
them from the table, in which they stand in the order of the journal.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import OutputError, UsageError, VideoError
from nonlocal_video.features.table import Dtype, metadata_of, schema_of, write_parts
from nonlocal_video.inference.prediction import printable
from nonlocal_video.inference.results import ResultFile
from nonlocal_video.inference.window_features import WindowFeatures
from nonlocal_video.io import refuse_link

if TYPE_CHECKING:
    import pyarrow

_DIGEST_BYTES = 8
_LITTLE_ENDIAN: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
Row = dict[str, Any]


class FeatureFile(ResultFile):
    """The Parquet file of one run; a context manager.

    Args:
        path: Of the table, which ends in `.parquet`.
        settings: What the rows depend on; a run is only resumed with the same.
        dtype: Of the features.
        resume: Take up an earlier run: its files are not done again unless they changed.

    Raises:
        UsageError: As in `ResultFile`, or the table is of another run than the journal.
        OutputError: The journal cannot be written there.
    """

    def __init__(self, path: str | os.PathLike[str], settings: dict[str, Any], *, dtype: Dtype, resume: bool) -> None:
        if Path(path).suffix.lower() != ".parquet":
            raise UsageError(f"output = {os.fspath(path)!r} should end in .parquet.")
        self._dtype: Dtype = dtype
        self._values_path = _values_of(Path(path))
        refuse_link(self._values_path, hard=True)
        if not resume and self._values_path.exists():
            raise UsageError(f"{str(self._values_path)!r} exists, which this run would write to. Delete it.")
        super().__init__(path, settings, top_k=0, resume=resume)
        self._lost_its_end = False
        self._num_in_table = 0
        """Entries of the journal that the table was made of."""
        self._rows_in_table: dict[str, int] = {}
        """First row in the table of each file that has its features there."""
        try:
            self._num_entries = self._find_values()
        except BaseException:
            self._journal.close()
            raise

    @staticmethod
    def files_of(path: str | os.PathLike[str] | None) -> list[Path]:
        """Return the files that a run with this output writes, to exclude them from its input."""
        return [] if path is None else [*ResultFile.files_of(path), _values_of(Path(path))]

    def add(self, path: str, result: WindowFeatures | VideoError) -> None:
        """Keep the features of a file, or why it has none.

        Raises:
            OutputError: The disk is full or fails. All files before this one are kept.
        """
        error = result if isinstance(result, VideoError) else result.error
        row: Row = {
            "path": printable(path),
            "error": None if error is None else {"code": error.code, "message": error.message},
            "windows": None,
        }
        if isinstance(result, WindowFeatures):
            row["windows"] = self._keep(result)
        self._rows_in_table.pop(path, None)
        self.append(path, row)
        self._num_entries += 1

    def drop_all_but(self, paths: Iterable[str]) -> int:
        """Leave files out of the table that are not among `paths`, and return their number."""
        gone = self._done.keys() - set(paths)
        for path in sorted(gone):
            self.append(path, {"path": printable(path), "error": None, "is_gone": True})
            self._num_entries += 1
        return len(gone)

    def _keep(self, found: WindowFeatures) -> Row:
        with np.errstate(over="ignore"):  # told below
            numbers = np.ascontiguousarray(found.features, dtype=_LITTLE_ENDIAN[self._dtype])
        if not np.isfinite(numbers).all():
            raise OutputError(
                f"{printable(found.path)}: features up to {np.abs(found.features).max():g} do not fit into "
                f"{self._dtype}; use float32."
            )
        data = numbers.tobytes()
        try:
            with open(self._values_path, "ab") as file:
                offset = file.tell()
                file.write(data)
        except OSError as problem:
            raise self._cannot_write(self._values_path, problem) from problem
        return {
            "starts": found.starts.tolist(),
            "ends": found.ends.tolist(),
            "num_features": numbers.shape[1],
            "window_frames": found.window_frames,
            "frames_per_second": found.frames_per_second,
            "stride_seconds": found.stride_seconds,
            "offset": offset,
            "digest": _digest(data),
        }

    def _find_values(self) -> int:
        """Find where the features of earlier runs are; files whose features are nowhere are to be done again.

        Returns:
            Number of entries in the journal.
        """
        if self.path.exists():
            self._num_in_table = self._entries_of_table()
        order: dict[str, Row] = {}
        number = 0
        for entry in self._entries():
            order.pop(entry["file"], None)
            order[entry["file"]] = entry["row"]
            number += 1
            if number == self._num_in_table:
                first = 0
                for path, row in order.items():
                    self._rows_in_table[path] = first
                    first += _num_rows(row)
            elif number > self._num_in_table:
                self._rows_in_table.pop(entry["file"], None)
        if number < self._num_in_table:
            raise UsageError(
                f"{str(self.journal_path)!r} has lost its end: it has {number} entries, and {str(self.path)!r} was "
                f"made of {self._num_in_table}. Use another output name."
            )
        for path, row in order.items():
            lost = path not in self._rows_in_table and row.get("windows") and self._read_values(row) is None
            if lost or row.get("is_gone"):
                del self._done[path]
                self._done_again.add(path)  # its earlier entries do not count
        return number

    def _entries_of_table(self) -> int:
        import pyarrow.parquet as pq

        try:
            return int(metadata_of(pq.read_schema(self.path))["entries"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{str(self.path)!r} is not the table of its journal: {error}. Use another output name, or move it "
                f"away."
            ) from error

    def _read_values(self, row: Row) -> NDArray[Any] | None:
        """Return the features (W, C) of a file from those kept beside the journal; None if they are not there whole."""
        windows = row["windows"]
        kind = _LITTLE_ENDIAN[self._dtype]
        shape = len(windows["starts"]), int(windows["num_features"])
        try:
            with open(self._values_path, "rb") as file:
                file.seek(windows["offset"])
                data = file.read(shape[0] * shape[1] * kind.itemsize)
        except OSError:
            return None
        return np.frombuffer(data, kind).reshape(shape) if _digest(data) == windows["digest"] else None

    def _write_table(self) -> None:
        if not (self.path.exists() and self._num_entries == self._num_in_table):
            super()._write_table()
        with suppress(OSError):  # a later run deletes it
            self._values_path.unlink(missing_ok=True)

    def _write_rows(self, draft: IO[bytes]) -> None:
        rows = [entry["row"]["windows"] for entry in self._last_entries() if entry["row"].get("windows")]
        noted = {
            "version": 1,
            "entries": self._num_entries,
            "num_windows": sum(len(windows["starts"]) for windows in rows),
            "settings": self._settings,
            **{name: self._settings[name] for name in ("model", "weights_sha256", "layer")},
        }
        # A list of Parquet has a length of at least 1; without any features it means nothing.
        schema = schema_of(rows[0]["num_features"] if rows else 1, self._dtype, noted)
        write_parts(draft, schema, self._parts())

    def _parts(self) -> Iterator[tuple[Sequence[Row], NDArray[Any]]]:
        earlier = _EarlierTable(self.path)
        for entry in self._last_entries():
            row = entry["row"]
            if not _num_rows(row):
                continue
            numbers: NDArray[Any] | None = np.empty((0, 1), dtype=_LITTLE_ENDIAN[self._dtype])
            if windows := row["windows"]:
                first = self._rows_in_table.get(entry["file"])
                numbers = self._read_values(row) if first is None else earlier.rows(first, len(windows["starts"]))
            if numbers is None:
                raise OutputError(
                    f"The features of {row['path']!r} are neither in {str(self._values_path)!r} nor in a table. Run "
                    f"the same command with --resume, and with this file among its paths."
                )
            yield rows_of(row, self._settings), numbers


class _EarlierTable:
    """The features of an earlier table, read in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: pyarrow.parquet.ParquetFile | None = None
        self._group = -1
        self._first = self._behind = 0  # rows of the group
        self._column: Any = None

    def rows(self, first: int, count: int) -> NDArray[Any]:
        """Return features (count, C); `first` never becomes smaller from call to call."""
        import pyarrow.parquet as pq

        self._file = self._file or pq.ParquetFile(self._path)
        found = []
        while count:
            while first >= self._behind:
                self._group += 1
                column = self._file.read_row_group(self._group, columns=["feature"]).column("feature").combine_chunks()
                self._first, self._behind, self._column = self._behind, self._behind + len(column), column
            part = self._column.slice(first - self._first, min(count, self._behind - first))
            found.append(part.flatten().to_numpy(zero_copy_only=False).reshape(len(part), -1))
            first, count = first + len(part), count - len(part)
        return np.concatenate(found)


def rows_of(row: Row, settings: dict[str, Any]) -> list[Row]:
    """Return the rows of a file without the features: its windows, and one more if it has an error."""
    windows = row["windows"] or {"starts": [], "ends": []}
    common = {
        "path": row["path"],
        "model": settings["model"],
        "weights_sha256": settings["weights_sha256"],
        "layer": settings["layer"],
        **{name: windows.get(name) for name in ("window_frames", "frames_per_second", "stride_seconds")},
    }
    rows = [
        {
            **common,
            "status": "ok",
            "window_index": index,
            "start_seconds": start,
            "end_seconds": end,
            "centre_seconds": (start + end) / 2,
            "error_code": None,
        }
        for index, (start, end) in enumerate(zip(windows["starts"], windows["ends"], strict=True))
    ]
    if row["error"]:
        nothing = dict.fromkeys(("window_index", "start_seconds", "end_seconds", "centre_seconds"))
        rows.append({**common, **nothing, "status": "error", "error_code": row["error"]["code"]})
    return rows


def _num_rows(row: Row) -> int:
    windows = row.get("windows")
    return (len(windows["starts"]) if windows else 0) + (row["error"] is not None)


def _values_of(path: Path) -> Path:
    return path.with_name(path.name + ".values")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
