"""The timeline of a long video, window by window, in one pass over its frames and with constant memory."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.context import Context, check_context, check_has_features, refined_so_far
from nonlocal_video.inference.feeding import default_batch_size
from nonlocal_video.inference.prediction import StageTimings
from nonlocal_video.inference.predictor import Predictor
from nonlocal_video.inference.preprocessing import LoadedClip
from nonlocal_video.inference.read_ahead import read_ahead
from nonlocal_video.inference.request import ClipRequest, SpanOptions, lists_options
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.inference.windows import WindowRequest, open_windows


@lists_options
def slide(
    predictor: Predictor,
    path: str | os.PathLike[str],
    *,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    batch_size: int | None = None,
    context: Context = "nonlocal",
    **options: Unpack[SpanOptions],
) -> Generator[Timeline, None, None]:
    """A timeline that grows by up to `batch_size` windows with each step; the last one is complete, or has an `error`.

    The frames are decoded once, in order, by a child of this generator's own, a batch ahead of the network, and dropped
    when no later window needs them. Without a `batch_size` it is as many as suit the device. Closing the generator
    stops the decoding. See `windows.plan_windows` for the arguments and for where the windows lie,
    `Recognizer.classify` for the region.

    With the context `nonlocal` each window's answer draws on the windows like it: while the timeline grows on those
    before it, in the last timeline on all. `Timeline.in_context` does the latter for a timeline that was not ended.

    Raises:
        VideoError: Not even one window can be read. Where the video breaks later, the last timeline has the windows
            before and says why there are no more.
        UsageError: An argument has a value that is not allowed.
    """
    grown: Timeline | None = None
    request = ClipRequest.parse(**options)
    windows = WindowRequest(window_seconds, stride_seconds, request.start_seconds, request.end_seconds, request.region)
    steps = _slide(predictor, os.fspath(path), windows, batch_size, context, fast=request.fast)
    with closing(steps):
        try:
            for grown in steps:
                yield grown.in_context(context) if grown.is_complete else grown
        except VideoError as error:
            if grown is None:
                raise
            yield replace(grown.in_context(context), error=error)


def last_of(steps: Iterator[Timeline]) -> Timeline:
    """Return the last timeline of `slide`, and warn the caller's caller if the video broke before its end."""
    result = deque(steps, maxlen=1).pop()
    if result.error is not None:
        warnings.warn(
            f"{result.error.message} {len(result)} of {result.num_planned} windows, up to {result.ends[-1]:.2f} s, "
            "were kept; the timeline's `error` says the same.",
            stacklevel=4,  # above `timeline` and the check of its options
        )
    return result


def _slide(
    predictor: Predictor, path: str, request: WindowRequest, batch_size: int | None, context: Context, *, fast: bool
) -> Generator[Timeline, None, None]:
    """Do what `slide` does, but raise a break after the timelines before it; windows draw on earlier ones only."""
    spec, region = predictor.card.view(fast=fast), request.region
    check_context(context)
    check_has_features(predictor.network, predictor.card.name, context)
    at_once = predictor.at_once if batch_size is None else batch_size
    batch_size = default_batch_size(predictor.device, spec) if batch_size is None else batch_size
    if batch_size < 1:
        raise UsageError(f"batch-size = {batch_size} should be at least 1.")
    device = predictor.device
    with (
        predictor.noting_failure(),
        predictor.new_reader() as reader,
        open_windows(reader, path, spec, request, device=device) as windows,
    ):
        plan, info = windows.plan, windows.info
        scores = np.empty((len(plan.starts), len(predictor.card.labels)), dtype=np.float32)
        logits = np.empty_like(scores)
        features: NDArray[np.float32] | None = None
        done, spent = 0, StageTimings(0.0, 0.0, 0.0)
        with closing(read_ahead(windows.clips, max(batch_size, at_once))) as clips:
            for batch in _batches(clips, max(batch_size, at_once)):
                before, info = done, batch[-1].info  # which another decoder may have taken over
                runtime = predictor.runtime
                num_ahead = len(scores) - done - len(batch)
                for prediction in predictor.predict(batch, batch_size=batch_size, num_ahead=num_ahead):
                    runtime = prediction.runtime
                    scores[done], logits[done] = prediction.scores, prediction.logits
                    if prediction.features is not None:
                        if features is None:
                            features = np.empty((len(scores), len(prediction.features)), dtype=np.float32)
                        features[done] = prediction.features
                    done += 1
                    spent = StageTimings(
                        spent.decode + prediction.timings.decode,
                        spent.transform + prediction.timings.transform,
                        spent.forward + prediction.timings.forward,
                    )
                if context != "none" and features is not None:
                    scores[before:done] = refined_so_far(logits[:done], features[:done], first=before)
                yield Timeline(
                    path=path,
                    model=predictor.card.name,
                    labels=predictor.card.labels,
                    starts=plan.starts[:done],
                    ends=plan.ends[:done],
                    scores=scores[:done],
                    logits=logits[:done],
                    features=None if features is None else features[:done],
                    context=context,
                    info=info,
                    window_seconds=plan.window_seconds,
                    stride_seconds=plan.stride_seconds,
                    num_planned=len(plan.starts),
                    num_frames=spec.num_frames,
                    crop=spec.crop,
                    device=str(device),
                    runtime=runtime,
                    precision=predictor.precision,
                    timings=spent,
                    taught=predictor.card.taught,
                    notes=(*info.notes, *plan.notes, *([] if region is None else [region.note])),
                )


def _batches(clips: Iterator[LoadedClip], size: int) -> Iterator[list[LoadedClip]]:
    """Yield up to `size` clips at a time; clips before an error are yielded before it is raised."""
    batch: list[LoadedClip] = []
    broken: VideoError | None = None
    while broken is None:
        try:
            clip = next(clips, None)
        except VideoError as error:
            broken, clip = error, None
        if clip is not None:
            batch.append(clip)
        if batch and (clip is None or len(batch) == size):
            yield batch
            batch = []
        if clip is None:
            break
    if broken is not None:
        raise broken
