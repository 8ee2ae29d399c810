"""The table of features: a Parquet file with a row for each window, and one for each file that could not be read.

`read_features` reads it into arrays; `iterate_features` does so a group of rows at a time, for tables that are larger
than memory. `extract.extract_features` writes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.prediction import path_of_printable

if TYPE_CHECKING:
    import pyarrow

Dtype = Literal["float32", "float16"]
DTYPES: tuple[str, ...] = get_args(Dtype)
FEATURE_COLUMNS = (
    "path", "status", "window_index", "start_seconds", "end_seconds", "centre_seconds", "feature", "model",
    "weights_sha256", "layer", "window_frames", "frames_per_second", "stride_seconds", "error_code",
)  # fmt: skip
"""Columns of a table of features."""
METADATA_KEY = b"nonlocal_video.features"
_ROWS_PER_GROUP = 4096


@dataclass(frozen=True)
class FeatureSource:
    """Origin of the features of a table; those of two tables compare only if this is the same."""

    model: str
    weights_sha256: str | None
    """Digest of the weights file; None of a network that came from no file."""
    layer: str
    """Dotted name of the layer whose output is pooled."""


@dataclass(frozen=True, repr=False)
class FeatureTable:
    """N windows, in the order of the table, and the files that have none; seconds are those of a player.

    Paths are those given to the run, as the file system knows them; a part of a video is `match.mp4#t=3,5.5`.
    """

    paths: tuple[str, ...]
    """File of each window, (N,)."""
    window_index: NDArray[np.int64]
    """Number of the window in its file, from 0, (N,)."""
    starts: NDArray[np.float64]
    """(N,) seconds."""
    ends: NDArray[np.float64]
    """(N,) seconds."""
    features: NDArray[np.float32]
    """(N, C)."""
    frames_per_second: NDArray[np.float64]
    """Rate at which the network sees the frames of each window, (N,)."""
    stride_seconds: NDArray[np.float64]
    """(N,)."""
    window_frames: int
    """Number of frames that the network sees of a window."""
    source: FeatureSource
    settings: dict[str, Any]
    """Settings of the run that wrote the table."""
    errors: tuple[tuple[str, str], ...]
    """Path and error code of each file that could not be read, or not to its end."""

    def __repr__(self) -> str:
        return (
            f"FeatureTable({len(self)} windows of {len(set(self.paths))} files, {self.features.shape[1]} features, "
            f"{self.source.model!r}, {self.source.layer!r}, {len(self.errors)} errors)"
        )

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.paths)

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each window in seconds, (N,)."""
        return (self.starts + self.ends) / 2


def read_features(path: str | os.PathLike[str]) -> FeatureTable:
    """Read a table that `features` wrote.

    Args:
        path: The Parquet file.

    Raises:
        UsageError: It is not such a table.

    Example:
        >>> table = read_features("clips.parquet")
        >>> table.features.shape
        (1520, 1024)
    """
    groups = list(iterate_features(path))
    first = groups[0]
    names = ("window_index", "starts", "ends", "frames_per_second", "stride_seconds")
    num_windows, width = sum(map(len, groups)), max(group.features.shape[1] for group in groups)
    features = np.empty((num_windows, width), dtype=np.float32)
    position = 0
    for group in groups:
        features[position : position + len(group)] = group.features
        position += len(group)
    return FeatureTable(
        paths=tuple(path for group in groups for path in group.paths),
        **{name: np.concatenate([getattr(group, name) for group in groups]) for name in names},
        features=features,
        window_frames=max(group.window_frames for group in groups),
        source=first.source,
        settings=first.settings,
        errors=tuple(error for group in groups for error in group.errors),
    )


def iterate_features(path: str | os.PathLike[str]) -> Iterator[FeatureTable]:
    """Yield a table that `features` wrote in parts of up to 4096 rows, at least one part.

    Args:
        path: The Parquet file.

    Raises:
        UsageError: It is not such a table.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            written = metadata_of(file.schema_arrow)
            for number in range(file.num_row_groups):
                yield _part(file.read_row_group(number), written)
            if not file.num_row_groups:
                yield _part(file.schema_arrow.empty_table(), written)
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are among them
        raise UsageError(f"{os.fspath(path)!r} is not a table of `features --output`: {error}") from error


def source_of(path: str | os.PathLike[str]) -> FeatureSource:
    """Read what the features of a table come from, and no row of it.

    Raises:
        UsageError: It is not such a table.
    """
    import pyarrow.parquet as pq

    try:
        return _source(metadata_of(pq.read_schema(path)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{os.fspath(path)!r} is not a table of `features --output`: {error}") from error


def metadata_of(schema: pyarrow.Schema) -> dict[str, Any]:
    """Return what the writer noted in a table's schema; a ValueError if it is another table."""
    noted = (schema.metadata or {}).get(METADATA_KEY)
    if noted is None:
        raise ValueError("it does not say what model its features come from.")
    found: dict[str, Any] = json.loads(noted)
    return found


def schema_of(num_features: int, dtype: Dtype, noted: dict[str, Any]) -> pyarrow.Schema:
    """Return the schema of a table.

    Args:
        num_features: Length of a feature.
        dtype: Of its numbers.
        noted: What `metadata_of` gives back.
    """
    import pyarrow as pa

    number = pa.float32() if dtype == "float32" else pa.float16()
    kinds = [
        pa.string(),
        pa.string(),
        pa.int64(),
        pa.float64(),
        pa.float64(),
        pa.float64(),
        pa.list_(number, num_features),
        pa.string(),
        pa.string(),
        pa.string(),
        pa.int64(),
        pa.float64(),
        pa.float64(),
        pa.string(),
    ]
    return pa.schema(
        list(zip(FEATURE_COLUMNS, kinds, strict=True)),
        metadata={METADATA_KEY: json.dumps(noted).encode()},
    )


def write_parts(
    output: Any, schema: pyarrow.Schema, parts: Iterator[tuple[Sequence[dict[str, Any]], NDArray[Any]]]
) -> None:
    """Write the rows of a table.

    Args:
        output: A Parquet file, open or by name.
        schema: From `schema_of`.
        parts: Rows without their features, and the features of those that have any, (rows, C), in order. A row with an
            `error_code` has none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [name for name in schema.names if name != "feature"]
    with pq.ParquetWriter(
        output,
        schema,
        compression={**dict.fromkeys(names, "zstd"), "feature.list.element": "none"},
        use_dictionary=["path", "status", "model", "weights_sha256", "layer", "error_code"],
        write_statistics=names,
    ) as writer:
        held: list[pyarrow.RecordBatch] = []
        num_held = 0
        for rows, features in parts:
            held.append(_batch(rows, features, schema))
            num_held += len(rows)
            if num_held >= _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_batches(held, schema), row_group_size=_ROWS_PER_GROUP)
                held, num_held = [], 0
        writer.write_table(pa.Table.from_batches(held, schema), row_group_size=_ROWS_PER_GROUP)


def _batch(rows: Sequence[dict[str, Any]], features: NDArray[Any], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    import pyarrow as pa

    field = schema.field("feature").type
    is_missing = np.array([row["error_code"] is not None for row in rows], dtype=bool)
    numbers = np.zeros((len(rows), field.list_size), dtype=field.value_type.to_pandas_dtype())
    if not is_missing.all():
        numbers[~is_missing] = features
    values = pa.array(numbers.reshape(-1), type=field.value_type)
    column = pa.FixedSizeListArray.from_arrays(values, type=field, mask=pa.array(is_missing))
    others = [
        column if name == "feature" else pa.array([row[name] for row in rows], schema.field(name).type)
        for name in schema.names
    ]
    return pa.RecordBatch.from_arrays(others, schema=schema)


def _part(table: pyarrow.Table, noted: dict[str, Any]) -> FeatureTable:
    is_ok = np.array(table.column("status").to_pylist(), dtype=object) == "ok"
    paths = [path_of_printable(path) for path in table.column("path").to_pylist()]
    codes = table.column("error_code").to_pylist()
    column = table.column("feature").combine_chunks()
    numbers = column.flatten().to_numpy(zero_copy_only=False)  # of rows that have any

    def of_windows(name: str) -> NDArray[Any]:
        return table.column(name).to_numpy()[is_ok]

    frames = of_windows("window_frames")
    return FeatureTable(
        paths=tuple(path for path, ok in zip(paths, is_ok, strict=True) if ok),
        window_index=of_windows("window_index").astype(np.int64),
        starts=of_windows("start_seconds"),
        ends=of_windows("end_seconds"),
        features=numbers.reshape(int(is_ok.sum()), column.type.list_size).astype(np.float32, copy=False),
        frames_per_second=of_windows("frames_per_second"),
        stride_seconds=of_windows("stride_seconds"),
        window_frames=int(frames[0]) if len(frames) else 0,
        source=_source(noted),
        settings=dict(noted["settings"]),
        errors=tuple((path, code) for path, code, ok in zip(paths, codes, is_ok, strict=True) if not ok),
    )


def _source(noted: dict[str, Any]) -> FeatureSource:
    return FeatureSource(noted["model"], noted["weights_sha256"], noted["layer"])
