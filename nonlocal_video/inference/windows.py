"""Windows over a long video: where they lie, and their clips, decoded in one pass with constant memory."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.crop_layout import CropLayout
from nonlocal_video.inference.fragment import split_part
from nonlocal_video.inference.object_storage import is_remote, local_copy
from nonlocal_video.inference.preprocessing import LoadedClip, check_not_too_elongated, crops_of
from nonlocal_video.inference.window_frames import WindowFrames
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.decode import FrameStream, VideoReader
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.region import Region
from nonlocal_video.video.sampling import FILLED, ShortClips, TemporalView, plan_views
from nonlocal_video.video.transforms import SpatialView, resize_region

MAX_TIMES = 5_000_000
"""Maximum number of windows times frames per window; a day at 25 frames per second and the default stride fits."""
MAX_HELD_BYTES = 1 << 30
"""Memory limit for the resized frames that overlapping windows share, in bytes; on a GPU they take as much again."""
TEN_CROPS = 10
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
    stride_windows: float = 0.5,
) -> WindowPlan:
    """Plan windows over a video from its first frame on; the last one ends with the video.

    A window is what `plan_views` makes of its span, so that a window of the model's own length holds the frames that
    `classify` takes of that span. In a longer or shorter window the model's number of frames is spread evenly. A video
    shorter than a window is one window, filled as the model's input says (`InputSpec.short_clips`).

    Args:
        info: The video.
        spec: The model's input.
        window_seconds: None is the model's own span.
        stride_seconds: From one window's start to the next one's; None is `stride_windows`.
        start_seconds: Where the part to look at begins.
        end_seconds: Where it ends.
        stride_windows: Stride in windows where none is given in seconds.

    Raises:
        UsageError: A number is out of range, or there are too many windows.
    """
    rate = spec.rate_in(info.fps)
    span = spec.num_frames / Fraction(rate)
    window = _above_zero("window-seconds", window_seconds) or span
    stride = _above_zero("stride-seconds", stride_seconds) or window * Fraction(stride_windows)
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


@dataclass(frozen=True)
class WindowRequest:
    """Settings for the windows of a video; see `plan_windows`.

    Raises:
        UsageError: A length is not above 0, or there is another number of crops than 1 or 10.
    """

    window_seconds: float | None = None
    stride_seconds: float | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    region: Region | None = None
    num_crops: int = 1
    """1 is the centre; 10 are the four corners and the centre, then the same of the mirrored frame, as torchvision's
    `TenCrop` orders them."""
    stride_windows: float = 0.5
    """Stride in windows, where `stride_seconds` is None."""

    def __post_init__(self) -> None:
        _above_zero("window-seconds", self.window_seconds)
        _above_zero("stride-seconds", self.stride_seconds)
        if self.num_crops not in (1, TEN_CROPS):
            raise UsageError(f"crops = {self.num_crops} should be 1 (the centre) or {TEN_CROPS}.")


@dataclass(frozen=True)
class OpenWindows:
    """The windows of a video whose decoding has begun."""

    info: VideoInfo
    """Description from probing; that of a clip says what decoded it in the end."""
    plan: WindowPlan
    clips: Generator[LoadedClip, None, None]
    """One a window, in order of time, each with `WindowRequest.num_crops` crops."""


@contextmanager
def open_windows(
    reader: VideoReader, path: str, spec: InputSpec, request: WindowRequest, *, device: torch.device
) -> Iterator[OpenWindows]:
    """Give the windows of a video; its frames are decoded once, in order, as the clips are taken.

    A frame is dropped when no later window needs it. When the block ends the decoding stops.

    Args:
        reader: Decodes; it takes no other request meanwhile.
        path: A video file, its URL, or a part of it as `fragment.with_part` names it.
        spec: The model's input.
        request: Which windows.
        device: Device of the network, to which each frame is copied once as its first window is taken.

    Raises:
        VideoError: The video cannot be read; from `clips` where it breaks later.
        DeviceError: From `clips`, if the device fails.
        UsageError: An argument has a value that is not allowed.
    """
    video, span = split_part(path)
    start, end = request.start_seconds, request.end_seconds
    if span is not None:
        if start is not None or end is not None:
            raise UsageError(f"{path!r} names a part of its video; leave start-seconds and end-seconds out.")
        start, end = span
    remote = is_remote(video)
    with local_copy(video, max_bytes=reader.limits.max_bytes) if remote else nullcontext(video) as local:
        info = reader.probe(local)
        plan = plan_windows(
            info,
            spec,
            window_seconds=request.window_seconds,
            stride_seconds=request.stride_seconds,
            start_seconds=start,
            end_seconds=end,
            stride_windows=request.stride_windows,
        )
        (centre,) = crops_of(info, spec, region=request.region)
        check_not_too_elongated(path, info, centre)
        # One frame a chunk: where a video breaks, no sound frame before the damage is lost with it.
        with (
            reader.stream(local, plan.times.ravel().tolist(), chunk_frames=1, box=centre.region_box) as stream,
            closing(_clips(path, stream, plan, spec, centre, request, device)) as clips,
        ):
            yield OpenWindows(info, plan, clips)


def _clips(
    path: str,
    stream: FrameStream,
    plan: WindowPlan,
    spec: InputSpec,
    centre: SpatialView,
    request: WindowRequest,
    device: torch.device,
) -> Generator[LoadedClip, None, None]:
    """Yield each window as a clip, as soon as its last frame is decoded."""
    frame_of_time = stream.frame_of_time.reshape(plan.times.shape)
    last_window = np.zeros(len(stream), dtype=np.int64)  # that needs a frame
    np.maximum.at(last_window, frame_of_time, np.arange(len(plan.times))[:, None])
    layout = _ten_crops(centre) if request.num_crops == TEN_CROPS else CropLayout.of([centre])
    _check_held(frame_of_time, last_window, plan, layout)
    seconds = stream.pts_seconds
    held = WindowFrames(device)
    num_read, started, transform = 0, time.perf_counter(), 0.0
    for window, frames_of_window in enumerate(frame_of_time):
        while num_read <= frames_of_window.max():
            chunk = next(stream)
            before = time.perf_counter()
            frames = torch.from_numpy(chunk.frames_thwc)
            resized = resize_region(frames, centre, antialias=spec.antialias, is_cut_out=True)
            packed = np.empty((1, layout.height, layout.width, 3), dtype=np.uint8)
            layout.pack(resized, packed)
            held.add(num_read, packed[0])
            num_read += 1
            transform += time.perf_counter() - before
        needed, position_of_time = np.unique(frames_of_window, return_inverse=True)
        yield LoadedClip(
            path=path,
            info=stream.info,
            input=spec,
            views=(plan.view(window),),
            crops=layout.crops,
            frames=held.window(needed.tolist()),
            positions=layout.positions,
            seconds=seconds[needed],
            frame_of_time=position_of_time.reshape(1, -1),
            decode_seconds=time.perf_counter() - started - transform,
            transform_seconds=transform,
            notes=stream.info.notes,
            region=request.region,
        )
        held.drop(needed[last_window[needed] == window].tolist())
        started, transform = time.perf_counter(), 0.0


def _check_held(
    frame_of_time: NDArray[np.int64], last_window: NDArray[np.int64], plan: WindowPlan, layout: CropLayout
) -> None:
    num_read = np.maximum.accumulate(frame_of_time.max(axis=1)) + 1
    num_done_with = np.bincount(last_window, minlength=len(frame_of_time))
    held = int((num_read - (np.cumsum(num_done_with) - num_done_with)).max())
    if held * layout.nbytes > MAX_HELD_BYTES:
        raise UsageError(
            f"windows of {plan.window_seconds:g} s every {plan.stride_seconds:g} s share {held} frames at a time, and "
            f"{MAX_HELD_BYTES // layout.nbytes} fit in memory; take a longer stride or shorter windows."
        )


def _ten_crops(centre: SpatialView) -> CropLayout:
    """Return the crops of `WindowRequest.num_crops` = 10."""
    bottom, right = centre.resized_height - centre.size, centre.resized_width - centre.size
    top_left, top_right, bottom_left, bottom_right = (
        replace(centre, top=top, left=left) for top in (0, bottom) for left in (0, right)
    )
    plain = (top_left, top_right, bottom_left, bottom_right, centre)
    mirrored = (top_right, top_left, bottom_right, bottom_left, centre)  # left in the mirrored frame is right here
    return CropLayout.of((*plain, *mirrored), mirrored=[False] * len(plain) + [True] * len(mirrored))


def _above_zero(name: str, value: float | None) -> Fraction | None:
    if value is None:
        return None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} = {value:g} should be a finite number above 0.")
    return Fraction(str(value))  # 2.56 is exactly 64/25, not the nearest float


def _rounded(seconds: Fraction) -> float:
    return float(round(seconds, 6))
