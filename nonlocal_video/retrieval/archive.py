"""A table of features as an archive that is searched: its windows, and their vectors in a file beside it.

The vectors of `TABLE.parquet` are in `TABLE.parquet.f16`: float16, row-major (W, C), of length 1 as `likeness` compares
them, in the order of paths and starts. `TABLE.parquet.f16.json` says of which table they are, by its SHA-256. Both
are made at the first search, and again whenever the table is another one. They are read through a memory map.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.features.table import FeatureSource, metadata_of
from nonlocal_video.inference.fragment import split_part
from nonlocal_video.inference.prediction import path_of_printable
from nonlocal_video.io import atomic_write, lock_of, sha256_of
from nonlocal_video.retrieval.likeness import Centring, Floats, rooted
from nonlocal_video.retrieval.windows import Windows

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_FORMAT = "nonlocal-video vectors 1"
_SOURCE = ("model", "weights_sha256", "layer")
_WINDOW_COLUMNS = ("path", "status", "start_seconds", "end_seconds", "centre_seconds")
_BATCH_ROWS = 8192


@dataclass(frozen=True)
class Archive:
    """A searchable table of features."""

    table: Path
    """The Parquet file."""
    source: FeatureSource
    """Origin of the features; those of a query have to come from the same."""
    settings: dict[str, Any] | None
    """Settings of the run that wrote the table; None of a table that does not say."""
    windows: Windows
    order: NDArray[np.int64]
    """Number that each window has among those of the table, (W,)."""
    vectors: NDArray[np.float16]
    """Unit vectors (W, C), memory-mapped."""
    centring: Centring
    num_errors: int
    """Number of files of the table that could not be read, or not to their end."""

    def features(self) -> Iterator[Floats]:
        """Yield the features of the windows, (n, C), in the order of the table."""
        return _Table(self.table).features()

    def seen_from(self, real: str, given: str) -> Archive:
        """Return the same with the paths below a folder as they are below another name of it."""
        paths = tuple(os.path.join(given, os.path.relpath(path, real)) for path in self.windows.paths)
        return replace(self, windows=replace(self.windows, paths=paths))


def open_archive(table: str | os.PathLike[str]) -> Archive:
    """Open a table of `features --output` for searching; the file of vectors is made if it is not there or not of it.

    Args:
        table: A Parquet file.

    Raises:
        UsageError: It is not such a table, has no windows, or its rows were made with different models or settings.
        OutputError: The file of vectors cannot be written.
    """
    table = Path(table)
    rows = _Table(table)
    windows, order, num_errors = rows.windows()
    lock_file = table.with_name(f".{table.name}.f16.lock")
    try:
        with lock_of(lock_file):
            header = _header_of(table, len(windows), rows.num_channels)
            if header is None:
                header = _make_vectors(table, rows, order)
            shape = len(windows), rows.num_channels
            vectors = np.memmap(_vectors_file(table), dtype=np.float16, mode="c", shape=shape)  # PyTorch warns of "r"
    except OSError as error:
        raise OutputError(
            f"The vectors of {str(table)!r} cannot be kept beside it: {error.strerror}. Make room, or copy the table "
            f"to a folder that can be written to."
        ) from error
    mean = np.array(header["mean"], dtype=np.float32)
    centring = Centring(mean, len(windows))
    return Archive(table, rows.source, rows.settings, windows, order, vectors, centring, num_errors)


def _vectors_file(table: Path) -> Path:
    return table.with_name(table.name + ".f16")


def _header_file(table: Path) -> Path:
    return table.with_name(table.name + ".f16.json")


def _stamp(table: Path) -> list[int]:
    """Return what changes when a file is written, so that its hash need not be computed at every search."""
    status = table.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _header_of(table: Path, num_windows: int, num_channels: int) -> dict[str, Any] | None:
    """Return the header of the vectors if they are whole and of this table."""
    try:
        header = json.loads(_header_file(table).read_text("utf-8"))
        is_whole = header["format"] == _FORMAT and header["shape"] == [num_windows, num_channels]
        is_whole = is_whole and len(header["mean"]) == num_channels
        is_whole = is_whole and _vectors_file(table).stat().st_size == 2 * num_windows * num_channels
        if not is_whole:
            return None
        if header["stamp"] != _stamp(table):
            stamp = _stamp(table)
            if header["table_sha256"] != sha256_of(table):
                return None
            header["stamp"] = stamp
            _write_header(table, header)
    except (OSError, ValueError, KeyError, TypeError):  # not there, or of something else: they are made
        return None
    return dict(header)


def _write_header(table: Path, header: dict[str, Any]) -> None:
    with atomic_write(_header_file(table)) as file:
        file.write(json.dumps(header).encode() + b"\n")


def _make_vectors(table: Path, rows: _Table, order: NDArray[np.int64]) -> dict[str, Any]:
    """Write the vectors and then their header; two passes over the table."""
    stamp, digest = _stamp(table), sha256_of(table)
    total, num_windows = np.zeros(rows.num_channels), len(order)
    for features in rows.features():
        if not np.isfinite(features).all():
            raise UsageError(f"{str(table)!r} has features that are not finite numbers. Extract them again.")
        total += rooted(features).sum(axis=0, dtype=np.float64)
    centring = Centring((total / num_windows).astype(np.float32), num_windows)
    position = np.empty(num_windows, dtype=np.int64)  # of each of the table's windows in the file
    position[order] = np.arange(num_windows)
    _header_file(table).unlink(missing_ok=True)  # else it would speak for the new vectors if this is interrupted
    with atomic_write(_vectors_file(table)) as file:
        done = 0
        for features in rows.features():
            vectors = torch.from_numpy(centring.unit(features)).half().numpy()
            places = position[done : done + len(vectors)]
            done += len(vectors)
            for run in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1):
                file.seek(2 * rows.num_channels * int(places[run[0]]))
                file.write(vectors[run[0] : run[-1] + 1].tobytes())
    if _stamp(table) != stamp:
        raise UsageError(f"{str(table)!r} was written while it was read. Search again when it is complete.")
    header = {
        "format": _FORMAT,
        "table_sha256": digest,
        "stamp": stamp,
        "shape": [num_windows, rows.num_channels],
        "source": asdict(rows.source),
        "mean": centring.mean.tolist(),
    }
    _write_header(table, header)
    return header


class _Table:
    """The Parquet file of features."""

    def __init__(self, table: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.table = table
        if not table.is_file():
            raise UsageError(f"{str(table)!r} is not there, or not a file. Give a table of `features --output`.")
        try:
            self._file: pq.ParquetFile = pq.ParquetFile(table)
        except (pa.ArrowException, OSError) as error:
            raise self._refused(str(error)) from error
        schema = self._file.schema_arrow
        missing = [name for name in (*_WINDOW_COLUMNS, "feature", *_SOURCE) if name not in schema.names]
        if missing:
            raise self._refused(f"it has no column {', '.join(missing)}")
        kind = schema.field("feature").type
        if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
            raise self._refused(f"its column feature is {kind}")
        self.num_channels = int(kind.list_size)
        self.source = self._source()
        self.settings = self._settings()

    def _refused(self, reason: str) -> UsageError:
        return UsageError(f"{str(self.table)!r} is not a table of `features --output`: {reason}.")

    def _settings(self) -> dict[str, Any] | None:
        try:
            return dict(metadata_of(self._file.schema_arrow)["settings"])
        except (ValueError, KeyError, TypeError):  # of another writer
            return None

    def _source(self) -> FeatureSource:
        """Return what the windows come from, which has to be the same for all."""
        noted = [self._value_of(name) for name in _SOURCE]
        if all(noted):
            return FeatureSource(*noted)  # type: ignore[arg-type]
        columns = self._file.read(columns=["status", *_SOURCE])
        columns = columns.filter(_is_ok(columns)).drop_columns(["status"])
        if not len(columns):
            raise UsageError(f"{str(self.table)!r} has no windows with features, so there is nothing to search.")
        different = columns.group_by(list(_SOURCE)).aggregate([]).to_pylist()
        if len(different) > 1:
            names = [name for name in _SOURCE if len({row[name] for row in different}) > 1]
            raise UsageError(
                f"The windows of {str(self.table)!r} differ in {', '.join(names)} and cannot be compared with each "
                f"other. Extract all features alike."
            )
        return FeatureSource(**different[0])

    def _value_of(self, name: str) -> str | None:
        """Return the one value of a text column by the file's statistics; None if there are several or none."""
        values = set()
        for number in range(self._file.num_row_groups):
            group = self._file.metadata.row_group(number)
            column = group.column(self._file.schema_arrow.names.index(name))
            found = column.statistics if column.path_in_schema == name else None
            if found is None or not found.has_min_max or found.null_count or found.min != found.max:
                return None
            values.add(found.min)
        return values.pop() if len(values) == 1 else None

    def windows(self) -> tuple[Windows, NDArray[np.int64], int]:
        """Return the windows in order, the row among those with features that each has, and the number of errors."""
        columns = self._file.read(columns=list(_WINDOW_COLUMNS))
        ok = _is_ok(columns)
        num_errors = len(columns) - int(ok.to_numpy().sum())
        columns = columns.filter(ok)
        if not len(columns):
            raise UsageError(f"{str(self.table)!r} has no windows with features, so there is nothing to search.")
        encoded = columns["path"].combine_chunks().dictionary_encode()
        # Parts of one video, `match.mp4#t=3,5.5`, are windows of one file: their seconds are those of the video.
        videos = [split_part(path_of_printable(path))[0] for path in encoded.dictionary.to_pylist()]
        paths = list(dict.fromkeys(videos))
        number_of = {path: number for number, path in enumerate(paths)}
        starts, ends, centres = (
            columns[name].to_numpy().astype(np.float64) for name in ("start_seconds", "end_seconds", "centre_seconds")
        )
        numbers = np.array([number_of[video] for video in videos], dtype=np.int64)[encoded.indices.to_numpy()]
        windows, order = Windows.ordered(paths, numbers, starts, ends, centres)
        return windows, order, num_errors

    def features(self) -> Iterator[Floats]:
        """Yield the features of the windows, (n, C), in the order of the table."""
        for batch in self._file.iter_batches(_BATCH_ROWS, columns=["status", "feature"]):
            ok = batch.filter(_is_ok(batch)).column("feature")
            if ok.null_count:
                raise self._refused("a row that is ok has no feature")
            numbers = np.array(ok.flatten().to_numpy(zero_copy_only=False))
            yield torch.from_numpy(numbers).float().numpy().reshape(-1, self.num_channels)  # NumPy's is 10 times slower


def _is_ok(rows: pa.Table | pa.RecordBatch) -> Any:
    import pyarrow.compute as pc

    return pc.fill_null(pc.equal(rows.column("status"), "ok"), False)
