"""The rows of a table of features as JSON values, for programs that get them over a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nonlocal_video.errors import ModelError
from nonlocal_video.features.store import rows_of
from nonlocal_video.features.table import FEATURE_COLUMNS
from nonlocal_video.inference.timeline import Timeline

if TYPE_CHECKING:
    from nonlocal_video.inference.recognizer import Recognizer


def to_rows(timeline: Timeline, recognizer: Recognizer, *, name: str) -> list[dict[str, Any]]:
    """Return a row for each window, with the columns and values of the Parquet table of `features`.

    Args:
        timeline: Windows of a video with their features.
        recognizer: Computed them.
        name: Path of the video, as the rows name it.

    Raises:
        ModelError: The network gave no features.
    """
    if timeline.features is None:
        raise ModelError(f"The network of {timeline.model!r} gives no features.")
    row = {
        "path": name,
        "error": None if timeline.error is None else {"code": timeline.error.code},
        "windows": {
            "starts": timeline.starts.tolist(),
            "ends": timeline.ends.tolist(),
            "window_frames": timeline.num_frames,
            "frames_per_second": timeline.num_frames / timeline.window_seconds,
            "stride_seconds": timeline.stride_seconds,
        },
    }
    about = {
        "model": timeline.model,
        "weights_sha256": recognizer.weights_sha256(),
        "layer": getattr(recognizer.network, "feature_layer", None),
    }
    # The shortest digits that give the float32; none for a last row with an error.
    features = [[float(text) for text in feature.astype(str)] for feature in timeline.features] + [None]
    found = [values | {"feature": feature} for values, feature in zip(rows_of(row, about), features, strict=False)]
    return [{name: values[name] for name in FEATURE_COLUMNS} for values in found]
