"""Arrays as projects for localisation, segmentation and anomalies read them, and the JSON that lies beside each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import IO, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError
from nonlocal_video.features.table import Dtype
from nonlocal_video.inference.prediction import printable
from nonlocal_video.inference.window_features import WindowFeatures
from nonlocal_video.inference.windows import TEN_CROPS

Layout = Literal["npy", "actionformer", "ms-tcn", "rtfm", "bmn"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
BMN_ROWS = 100
_SAMPLES_A_ROW = 3
_ON_GRID_SECONDS = 1e-3
_WHOLE_VIDEOS = ("actionformer", "ms-tcn")
"""Layouts whose rows are matched with the annotation of a whole video by their number alone."""
_HALF_WINDOW, _WINDOW = 0.5, 1.0


@dataclass(frozen=True)
class Rows:
    """Features of a video, ready to be written."""

    array: NDArray[Any]
    fps: float
    """Frames in a second, in which the three below are counted."""
    num_frames: float
    """Frames of a row's window; of `ms-tcn` those of the video."""
    feat_stride: float
    """Frames from one row to the next."""
    offset_frames: float
    """Frame in the middle of the first row's window."""
    start_seconds: list[float] | None = None
    """Start of each row's window; None where a row is not one window."""
    uncovered_seconds: float = 0.0
    """The end of the video that no row's window reaches."""


def check_layout(
    layout: str, *, dtype: Dtype, crops: int | None, start_seconds: float | None, end_seconds: float | None
) -> tuple[Layout, int, float]:
    """Refuse what a layout cannot hold.

    Returns:
        The layout, the number of crops, and the stride in windows where none is given in seconds.

    Raises:
        UsageError: The layout is unknown, or cannot hold the crops, the type or the part of a video.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"layout = {layout!r} should be one of {', '.join(LAYOUTS)}.")
    if crops is None:
        crops = TEN_CROPS if layout == "rtfm" else 1
    if (layout == "rtfm") != (crops == TEN_CROPS) and layout != "npy":
        raise UsageError(f"crops = {crops}: layout rtfm holds {TEN_CROPS} crops, npy 1 or {TEN_CROPS}, the others 1.")
    if layout == "bmn" and dtype != "float32":
        raise UsageError(f"dtype = {dtype!r} does not apply to layout bmn, which is text; leave dtype out.")
    if layout in _WHOLE_VIDEOS and (start_seconds is not None or end_seconds is not None):
        raise UsageError(
            f"layout {layout} matches rows with the annotation of a whole video; leave start-seconds and end-seconds "
            f"out, or take layout npy."
        )
    chosen: Layout = layout  # type: ignore[assignment]
    return chosen, crops, _WINDOW if layout == "rtfm" else _HALF_WINDOW


def holds_parts(layout: Layout) -> bool:
    """Return whether a part of a video may have a file."""
    return layout not in _WHOLE_VIDEOS


def arrange(
    found: WindowFeatures, layout: Layout, *, dtype: Dtype, frame_times: NDArray[np.float64] | None = None
) -> Rows:
    """Return the rows of a video in a layout.

    Args:
        found: Its features.
        layout: `npy`: (W, C), or (W, 10, C), all windows. `actionformer`: (T, C), and `rtfm`: (T, 10, C), without a
            last window that is nearer to the one before it. `ms-tcn`: (C, frames), interpolated between the windows'
            centres. `bmn`: (100, C), means over equal parts of the time.
        dtype: Of the array.
        frame_times: Of `ms-tcn`, when each frame of the video begins to be shown, in seconds.
    """
    fps, window, stride = found.frames_per_second, found.window_seconds, found.stride_seconds
    first = float(found.starts[0]) + window / 2
    if layout == "ms-tcn":
        if frame_times is None:
            raise ValueError("ms-tcn needs the times of the frames.")
        columns = _interpolated(found, frame_times).T
        return Rows(_as(columns, dtype), found.info.fps, len(frame_times), 1.0, 0.0)
    if layout == "bmn":
        begin, seconds = float(found.starts[0]), float(found.ends[-1] - found.starts[0])
        middles = (np.arange(BMN_ROWS * _SAMPLES_A_ROW) + 0.5) / (BMN_ROWS * _SAMPLES_A_ROW)
        rows = _interpolated(found, begin + middles * seconds).reshape(BMN_ROWS, _SAMPLES_A_ROW, -1).mean(axis=1)
        length = seconds / BMN_ROWS * fps
        return Rows(_as(rows, dtype), fps, length, length, begin * fps + length / 2)
    kept = slice(None) if layout == "npy" else slice(_num_on_grid(found))
    return Rows(
        _as(found.features[kept], dtype),
        fps,
        found.window_frames,
        stride * fps,
        first * fps,
        found.starts[kept].tolist(),
        float(found.ends[-1] - found.ends[kept][-1]),
    )


def write_array(file: IO[bytes], rows: Rows, layout: Layout) -> None:
    """Write an array: `bmn` as a CSV with the header f0,f1,..., the others as .npy."""
    if layout == "bmn":
        header = ",".join(f"f{column}" for column in range(rows.array.shape[1]))
        np.savetxt(file, rows.array, fmt="%.7g", delimiter=",", header=header, comments="")
    else:
        np.save(file, rows.array, allow_pickle=False)


def write_description(file: IO[bytes], found: WindowFeatures, rows: Rows, layout: Layout) -> None:
    """Write what the rows of an array are, as JSON."""
    axes = {"ms-tcn": "feature, frame", "bmn": "part, feature"}
    crops = "row, crop, feature" if rows.array.ndim == len(("row", "crop", "feature")) else "row, feature"
    described = {
        "path": printable(found.path),
        "layout": layout,
        "shape": list(rows.array.shape),
        "axes": axes.get(layout, crops),
        "fps": rows.fps,
        "num_frames": rows.num_frames,
        "feat_stride": rows.feat_stride,
        "offset_frames": rows.offset_frames,
        "start_seconds": rows.start_seconds,
        "uncovered_seconds": rows.uncovered_seconds,
        "window_seconds": found.window_seconds,
        "stride_seconds": found.stride_seconds,
        "video_start_seconds": found.info.start_seconds,
        "duration_seconds": found.info.duration_seconds,
        "model": found.model,
        "weights_sha256": found.weights_sha256,
        "layer": found.layer,
        "notes": list(found.notes),
    }
    file.write(json.dumps(described, indent=1, allow_nan=False).encode() + b"\n")


def _num_on_grid(found: WindowFeatures) -> int:
    """Return the number of windows that lie a stride apart; at least one."""
    last = len(found) - 1
    off = found.starts[last] - (found.starts[0] + last * found.stride_seconds)
    return len(found) if abs(off) < _ON_GRID_SECONDS or not last else last


def _interpolated(found: WindowFeatures, seconds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return features (seconds, C): linear between the windows' centres, held before the first and after the last."""
    centres = found.centres
    if len(centres) == 1:
        return np.repeat(found.features, len(seconds), axis=0)
    position = np.interp(seconds, centres, np.arange(len(centres)))
    before = np.minimum(position.astype(np.int64), len(centres) - 2)
    weight = (position - before).astype(np.float32)[:, None]
    return found.features[before] * (1 - weight) + found.features[before + 1] * weight


def _as(array: NDArray[np.float32], dtype: Dtype) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=dtype)
