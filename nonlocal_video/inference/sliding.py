"""Sliding windows over a long video, in one pass over its frames and with constant memory."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.context import Context, check_context, check_has_features, refined_so_far
from nonlocal_video.inference.feeding import default_batch_size
from nonlocal_video.inference.prediction import StageTimings
from nonlocal_video.inference.predictor import Predictor
from nonlocal_video.inference.preprocessing import LoadedClip, check_not_too_elongated, crops_of
from nonlocal_video.inference.read_ahead import read_ahead
from nonlocal_video.inference.request import ClipRequest, SpanOptions, lists_options
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.inference.upload import on_device
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.decode import FrameStream
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.sampling import FILLED, ShortClips, TemporalView, plan_views
from nonlocal_video.video.transforms import SpatialView, cut, resize_region

MAX_TIMES = 5_000_000
"""Maximum number of windows times frames per window; a day at 25 frames per second and the default stride fits."""
MAX_HELD_BYTES = 1 << 30
"""Memory limit for the resized frames that overlapping windows share, in bytes."""
_SAME_SECONDS = Fraction(1, 1000)  # lengths that differ by less are the same to sampling, too


@dataclass(frozen=True, repr=False)
class WindowPlan:
    """W windows with the T sampling times of each."""

    starts: NDArray[np.float64]  # (W,) seconds from the beginning of the file
    ends: NDArray[np.float64]  # (W,)
    times: NDArray[np.float64]  # (W, T)
    filled: ShortClips | None  # as in `TemporalView`
    window_seconds: float
    stride_seconds: float
    notes: tuple[str, ...]

    def view(self, window: int) -> TemporalView:
        """Return a window as a view, as from `plan_views`."""
        times = tuple(self.times[window].tolist())
        start, end = float(self.starts[window]), float(self.ends[window])
        return TemporalView(
            start, end, times, end - start if self.filled == "spread" else self.window_seconds, self.filled
        )


def plan_windows(
    info: VideoInfo,
    spec: InputSpec,
    *,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> WindowPlan:
    """Plan windows over a video from its first frame on; the last one ends with the video.

    A window is what `plan_views` makes of its span, so that a window of the model's own length holds the frames that
    `classify` takes of that span. In a longer or shorter window the model's number of frames is spread evenly. A video
    shorter than a window is one window, filled as the model's input says (`InputSpec.short_clips`).

    Args:
        info: The video.
        spec: The model's input.
        window_seconds: None is the model's own span.
        stride_seconds: From one window's start to the next one's; None is half a window.
        start_seconds: Where the part to look at begins.
        end_seconds: Where it ends.

    Raises:
        UsageError: A number is out of range, or there are too many windows.
    """
    rate = spec.rate_in(info.fps)
    span = spec.num_frames / Fraction(rate)
    window = _above_zero("window-seconds", window_seconds) or span
    stride = _above_zero("stride-seconds", stride_seconds) or window / 2
    if stride > window + Fraction(1, 10**6):
        raise UsageError(
            f"stride-seconds = {float(stride):g} should not exceed the window's {float(window):g} s: no window would "
            f"see what is between. A longer window spreads its frames over more time."
        )
    notes = []
    if abs(window - span) > _SAME_SECONDS:
        rate = float(spec.num_frames / window)
        notes.append(
            f"The windows last {float(window):.2f} s, the model's own {float(span):.2f} s: their {spec.num_frames} "
            f"frames are spread evenly, {rate:.2f} a second instead of {spec.num_frames / float(span):.2f}."
        )
    (whole,) = plan_views(
        info, num_frames=1, frames_per_second=1e-9, start_seconds=start_seconds, end_seconds=end_seconds
    )  # one endless view: it has the bounds of the part, checked
    start, end = Fraction(whole.start_seconds), Fraction(whole.end_seconds)
    num_before = max(0, math.ceil((end - start - window - _SAME_SECONDS) / stride))  # windows that end before the end
    if (num_before + 1) * spec.num_frames > MAX_TIMES:
        raise UsageError(
            f"stride-seconds = {float(stride):g} makes {num_before + 1} windows of {spec.num_frames} frames, and "
            f"{MAX_TIMES // spec.num_frames} are allowed; take a longer stride, or a part of the video."
        )
    # In whole microseconds, so that what is printed is what was done.
    spans = [(_rounded(start + k * stride), _rounded(start + k * stride + window)) for k in range(num_before)]
    spans.append((max(whole.start_seconds, _rounded(end - window)), whole.end_seconds))
    times = np.empty((len(spans), spec.num_frames))
    filled: ShortClips | None = None
    for row, (first, last) in zip(times, spans, strict=True):
        (view,) = plan_views(
            info,
            num_frames=spec.num_frames,
            frames_per_second=rate,
            start_seconds=first,
            end_seconds=last,
            frame_placement=spec.frame_placement,
            short_clips=spec.short_clips,
        )
        row[:] = view.times_seconds
        filled = view.filled
    if filled is not None:
        notes.append(
            f"The video ({float(end - start):.2f} s) is shorter than a window ({float(window):.2f} s) and was "
            f"{FILLED[filled]}."
        )
    starts, ends = np.array(spans).T
    return WindowPlan(starts, ends, times, filled, float(window), float(stride), tuple(notes))


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
    stops the decoding. See `plan_windows` for the arguments and where the windows lie, `Recognizer.classify` for the
    region.

    With the context `nonlocal` each window's answer draws on the windows like it: while the timeline grows on those
    before it, in the last timeline on all. `Timeline.in_context` does the latter for a timeline that was not ended.

    Raises:
        VideoError: Not even one window can be read. Where the video breaks later, the last timeline has the windows
            before and says why there are no more.
        UsageError: An argument has a value that is not allowed.
    """
    grown: Timeline | None = None
    request = ClipRequest.parse(**options)
    steps = _slide(predictor, os.fspath(path), request, window_seconds, stride_seconds, batch_size, context)
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
    predictor: Predictor,
    path: str,
    request: ClipRequest,
    window_seconds: float | None,
    stride_seconds: float | None,
    batch_size: int | None,
    context: Context,
) -> Generator[Timeline, None, None]:
    """As `slide`, but a break is raised after the timelines before it, and windows only draw on those before them."""
    spec, region = predictor.card.view(fast=request.fast), request.region
    check_context(context)
    check_has_features(predictor.network, predictor.card.name, context)
    batch_size = default_batch_size(predictor.device, spec) if batch_size is None else batch_size
    if batch_size < 1:
        raise UsageError(f"batch-size = {batch_size} should be at least 1.")
    with predictor.new_reader() as reader:
        info = reader.probe(path)
        plan = plan_windows(
            info,
            spec,
            window_seconds=window_seconds,
            stride_seconds=stride_seconds,
            start_seconds=request.start_seconds,
            end_seconds=request.end_seconds,
        )
        (place,) = crops_of(info, spec, region=region)
        check_not_too_elongated(path, info, place)
        scores = np.empty((len(plan.starts), len(predictor.card.labels)), dtype=np.float32)
        logits = np.empty_like(scores)
        features: NDArray[np.float32] | None = None
        done, spent = 0, StageTimings(0.0, 0.0, 0.0)
        # One frame a chunk: where a video breaks, no sound frame before the damage is lost with it.
        with (
            reader.stream(path, plan.times.ravel().tolist(), chunk_frames=1, box=place.region_box) as stream,
            closing(_clips(path, stream, plan, spec, place)) as decoded,
            closing(read_ahead((on_device(clip, predictor.device) for clip in decoded), batch_size)) as clips,
        ):
            for batch in _batches(clips, batch_size):
                before = done
                for prediction in predictor.predict(batch, batch_size=batch_size):
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
                    info=stream.info,
                    window_seconds=plan.window_seconds,
                    stride_seconds=plan.stride_seconds,
                    num_planned=len(plan.starts),
                    num_frames=spec.num_frames,
                    crop=spec.crop,
                    device=str(predictor.device),
                    runtime=predictor.runtime,
                    precision=predictor.precision,
                    timings=spent,
                    notes=(*stream.info.notes, *plan.notes, *([] if region is None else [region.note])),
                )


def _clips(
    path: str, stream: FrameStream, plan: WindowPlan, spec: InputSpec, place: SpatialView
) -> Generator[LoadedClip, None, None]:
    """Yield each window as a clip, as soon as its last frame is decoded."""
    frame_of_time = stream.frame_of_time.reshape(plan.times.shape)
    last_window = np.zeros(len(stream), dtype=np.int64)  # that needs a frame
    np.maximum.at(last_window, frame_of_time, np.arange(len(plan.times))[:, None])
    _check_held(frame_of_time, last_window, spec, plan)
    seconds = stream.pts_seconds
    held: dict[int, torch.Tensor] = {}  # number of a frame -> uint8 (crop, crop, 3)
    num_read, started, transform = 0, time.perf_counter(), 0.0
    for window, frames_of_window in enumerate(frame_of_time):
        while num_read <= frames_of_window.max():
            chunk = next(stream)
            before = time.perf_counter()
            frames = torch.from_numpy(chunk.frames_thwc)
            resized = resize_region(frames, place, antialias=spec.antialias, is_cut_out=True)
            # A view would keep the whole resized frame; NumPy copies in this thread.
            held[num_read] = torch.from_numpy(cut(resized, place)[0].numpy().copy())
            num_read += 1
            transform += time.perf_counter() - before
        needed, position_of_time = np.unique(frames_of_window, return_inverse=True)
        yield LoadedClip(
            path=path,
            info=stream.info,
            input=spec,
            views=(plan.view(window),),
            crops=(place,),
            squares=(torch.stack([held[frame] for frame in needed.tolist()]),),
            seconds=seconds[needed],
            frame_of_time=position_of_time.reshape(1, -1),
            decode_seconds=time.perf_counter() - started - transform,
            transform_seconds=transform,
            notes=stream.info.notes,
        )
        for frame in [frame for frame in held if last_window[frame] <= window]:
            del held[frame]
        started, transform = time.perf_counter(), 0.0


def _check_held(
    frame_of_time: NDArray[np.int64], last_window: NDArray[np.int64], spec: InputSpec, plan: WindowPlan
) -> None:
    num_read = np.maximum.accumulate(frame_of_time.max(axis=1)) + 1
    num_done_with = np.bincount(last_window, minlength=len(frame_of_time))
    held = int((num_read - (np.cumsum(num_done_with) - num_done_with)).max())
    if held * 3 * spec.crop**2 > MAX_HELD_BYTES:
        raise UsageError(
            f"windows of {plan.window_seconds:g} s every {plan.stride_seconds:g} s share {held} frames at a time, and "
            f"{MAX_HELD_BYTES // (3 * spec.crop**2)} fit in memory; take a longer stride or shorter windows."
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


def _above_zero(name: str, value: float | None) -> Fraction | None:
    if value is None:
        return None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} = {value:g} should be a finite number above 0.")
    return Fraction(str(value))  # 2.56 is exactly 64/25, not the nearest float


def _rounded(seconds: Fraction) -> float:
    return float(round(seconds, 6))
