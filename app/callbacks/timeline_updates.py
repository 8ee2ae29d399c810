"""The growing timeline of a video, as often as it is worth drawing."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from nonlocal_video.errors import VideoError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.sliding import slide
from nonlocal_video.inference.timeline import Timeline

from ..choices import FAST, WIDE, WIDE_TIMES
from ..messages import without_folder

UPDATE_SHARE = 10
"""Inverse of the largest share of time spent on drawing: updates of a very long timeline are rarer."""


def timeline_updates(
    recognizer: Recognizer,
    path: Path,
    *,
    update_seconds: float,
    fast: bool = False,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    region: str | None = None,
) -> Generator[Timeline, None, None]:
    """Yield the growing timeline from time to time; the last one is complete or has an error.

    Args:
        recognizer: Recognizer to use.
        path: Path of the video.
        update_seconds: Minimum seconds between two timelines.
        fast: See `slide`.
        window_seconds: See `slide`.
        stride_seconds: See `slide`.
        region: See `slide`.

    Raises:
        VideoError: Not even the first window can be read.
    """
    timeline, due = None, 0.0
    windows = slide(
        recognizer, path, fast=fast, window_seconds=window_seconds, stride_seconds=stride_seconds, region=region
    )
    with closing(windows):
        for timeline in windows:
            timeline = replace(timeline, path=path.name)
            if timeline.is_complete or timeline.error:
                break
            if (now := time.monotonic()) >= due:
                yield timeline
                shown = time.monotonic()
                due = shown + max(update_seconds, UPDATE_SHARE * (shown - now))
    assert timeline is not None
    if timeline.error:
        error = VideoError(timeline.error.code, without_folder(timeline.error.message, path.parent))
        timeline = replace(timeline, error=error)
    yield timeline


def window_settings(recognizer: Recognizer, path: Path, window: str, stride: float) -> dict[str, Any]:
    """Return the arguments of `timeline_updates` for a value of `window_choices` and a stride in windows."""
    spec = recognizer.card.view(fast=window == FAST)
    with recognizer.new_reader() as reader:  # a model's own span may depend on the video's rate
        span = spec.num_frames / spec.rate_in(reader.probe(path).fps)
    if window != WIDE:
        return {"fast": window == FAST, "stride_seconds": stride * span}
    return {"window_seconds": WIDE_TIMES * span, "stride_seconds": stride * WIDE_TIMES * span}
