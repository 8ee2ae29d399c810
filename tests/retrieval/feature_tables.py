"""Tables of features as `features --output` writes them, made of given numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Rows = Sequence[tuple[str, Sequence[float], NDArray[np.float64]]]
SETTINGS = {
    "model": ("tiny", pa.string()),
    "weights_sha256": ("0" * 64, pa.string()),
    "layer": ("pool", pa.string()),
    "window_frames": (8, pa.int64()),
    "frames_per_second": (10.0, pa.float64()),
    "stride_seconds": (1.0, pa.float64()),
}


def write_table(
    path: Path, rows: Rows, *, seconds: float = 2.0, errors: Sequence[str] = (), half: bool = False, **settings: object
) -> Path:
    """Write windows of some seconds: path, starts (n,) and features (n, C) of each file, and files with an error."""
    channels = rows[0][2].shape[1] if rows else 4
    kind = pa.float16() if half else pa.float32()
    parts = []
    for name, starts, features in rows:
        begin = np.array(starts, dtype=float)
        flat = pa.array(features.astype(np.float16 if half else np.float32).ravel(), kind)
        columns = {
            "path": [name] * len(begin),
            "status": ["ok"] * len(begin),
            "window_index": pa.array(range(len(begin)), pa.int64()),
            "start_seconds": begin,
            "end_seconds": begin + seconds,
            "centre_seconds": begin + seconds / 2,
            "feature": pa.FixedSizeListArray.from_arrays(flat, channels),
            "error_code": pa.nulls(len(begin), pa.string()),
        }
        parts.append(_with_settings(columns, len(begin), settings))
    for name in errors:
        columns = {
            "path": [name],
            "status": ["error"],
            "window_index": pa.nulls(1, pa.int64()),
            "start_seconds": pa.nulls(1, pa.float64()),
            "end_seconds": pa.nulls(1, pa.float64()),
            "centre_seconds": pa.nulls(1, pa.float64()),
            "feature": pa.nulls(1, pa.list_(kind, channels)),
            "error_code": ["corrupt"],
        }
        parts.append(_with_settings(columns, 1, settings))
    pq.write_table(pa.concat_tables(parts), path)
    return path


def _with_settings(columns: dict[str, object], count: int, settings: dict[str, object]) -> pa.Table:
    for name, (value, kind) in SETTINGS.items():
        columns[name] = pa.array([settings.get(name, value)] * count, kind)
    return pa.table(columns)
