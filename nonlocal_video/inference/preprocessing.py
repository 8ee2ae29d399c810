"""Preprocessing of a clip: probe, choose the time spans, decode once, resize and crop."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.crop_layout import CropLayout, CropPosition
from nonlocal_video.inference.fragment import split_part
from nonlocal_video.inference.object_storage import is_remote, local_copy
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.decode import FrameStream, VideoReader
from nonlocal_video.video.info import FrameChunk, VideoInfo
from nonlocal_video.video.region import PixelBox, Region
from nonlocal_video.video.sampling import FILLED, TemporalView, plan_views
from nonlocal_video.video.transforms import (
    SpatialView,
    normalise,
    resize_region,
    resize_short_side,
    spatial_views,
)

MAX_RESIZED_PIXELS = 36_000_000
"""Maximum number of pixels of a resized frame, which very elongated videos exceed (16 x 4096)."""
MAX_DRAWN_SIDE = 1920
"""Maximum longer side of frames kept for drawing, in pixels."""
_CHUNK_PIXELS = 8_000_000
"""Pixels of the frames received at a time, 24 MB. The C library maps larger blocks anew each time, and page faults
cost several times what receiving does: for 64 frames of 1080p 0.58 s of system time instead of 0.07 s."""

ClipSource = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Sequence[NDArray[np.uint8]]


@dataclass(frozen=True, repr=False)
class LoadedClip:
    """Decoded crops of a clip for all its views, each distinct frame once."""

    path: str
    info: VideoInfo
    input: InputSpec
    views: tuple[TemporalView, ...]
    crops: tuple[SpatialView, ...]
    frames: torch.Tensor
    """The K distinct frames, uint8 (K, H, W, 3), packed (`CropLayout`): all that the network can see of them, once; on
    the CPU, or on the device that `upload.on_device` took them to."""
    positions: tuple[CropPosition, ...]
    """Position of each crop in `frames`."""
    seconds: NDArray[np.float64]  # (K,) counted from the beginning of the file
    frame_of_time: NDArray[np.int64]  # (len(views), num_frames) -> K
    decode_seconds: float
    transform_seconds: float
    notes: tuple[str, ...]
    region: Region | None = None
    """Part of the picture in which the crops lie; None is all of it."""

    def crop_frames(self, crop: int) -> torch.Tensor:
        """Return one crop of the distinct frames, uint8 (K, crop, crop, 3)."""
        return self.positions[crop].cut_out(self.frames)

    def network_input(self, view: int, crop: int, *, device: torch.device | str = "cpu") -> torch.Tensor:
        """(1, 3, num_frames, crop, crop) float32, normalised: one temporal view and one of its crops."""
        index = torch.from_numpy(self.frame_of_time[view]).to(self.frames.device)  # indexed where the frames are
        frames = self.crop_frames(crop).index_select(0, index)
        return normalise(frames.to(device), self.input.mean, self.input.std)[None]


class ClipLoader:
    """Loads clips for the network through one decoding process."""

    def __init__(self, reader: VideoReader, *, pinned: bool = False) -> None:
        """Create a loader.

        Args:
            reader: Reader to decode with; not shared while a clip is loaded.
            pinned: Whether to put frames into pinned memory, for asynchronous copies to a CUDA device.
        """
        self.reader, self._pinned = reader, pinned

    def load(
        self, source: ClipSource, spec: InputSpec, request: ClipRequest, *, originals: list[NDArray[np.uint8]] | None
    ) -> LoadedClip:
        """Decode the frames of a clip that a request needs.

        Args:
            source: Path or bytes of a file, or frames as uint8 (T, H, W, 3) RGB.
            spec: Input of the model.
            request: Time span, region, views and rate.
            originals: List to which every distinct frame is appended at its own size, for drawing; None keeps none.

        Raises:
            VideoError: The file cannot be read.
            UsageError: The span or the array is not usable.
        """
        if request.frames_per_second is not None and not _is_decoded(source):
            raise UsageError(
                f"frames_per_second = {request.frames_per_second:g} is for frames given as an array; a video file has "
                f"its own times: omit it."
            )
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        if name is not None:
            video, span = split_part(name)
            if span is not None:
                source, request = video, _of_part(name, request, *span)
        with _opened(source, self.reader, request.frames_per_second or spec.frames_per_second) as (path, clip):
            started = time.perf_counter()
            info = clip.probe()
            views = views_of(info, spec, request)
            crops = crops_of(info, spec, num_crops=request.views.num_crops, region=request.region)
            layout = CropLayout.of(crops)
            check_not_too_elongated(path, info, crops[0])
            times = [seconds for view in views for seconds in view.times_seconds]
            # Only the region leaves the decoding child, unless whole frames are to be drawn on. It is resized here, not
            # there: PyTorch would take most of a child's address space, and NumPy takes 30 times as long for the same
            # bits as it takes to hand a frame over (`benchmarks/resize_in_child.py`).
            box = crops[0].region_box if originals is None else None
            transform_seconds, position = 0.0, 0
            with clip.stream(times, chunk_frames=_chunk_frames(info, crops[0]), box=box) as stream:
                packed = self._room(len(stream), layout)
                for chunk in stream:
                    before = time.perf_counter()
                    frames = torch.from_numpy(chunk.frames_thwc)
                    if originals is not None:
                        originals.extend(_for_drawing(frames).numpy())
                    resized = resize_region(frames, crops[0], antialias=spec.antialias, is_cut_out=box is not None)
                    layout.pack(resized, packed.numpy()[position : position + len(frames)])
                    position += len(frames)
                    transform_seconds += time.perf_counter() - before
            elapsed = time.perf_counter() - started
        info = stream.info
        notes = list(info.notes)
        if (filled := views[0].filled) is not None:
            notes.append(
                f"The clip ({info.duration_seconds:.2f} s) is shorter than a view "
                f"({spec.num_frames / spec.rate_in(info.fps):.2f} s) and was {FILLED[filled]}."
            )
        if _is_decoded(source) and request.frames_per_second is None:
            notes.append(f"The frames came without a rate; {spec.frames_per_second:g} per second was assumed.")
        if request.region is not None:
            notes.append(request.region.note)
        return LoadedClip(
            path=name or path,
            info=info,
            input=spec,
            views=views,
            crops=crops,
            frames=packed,
            positions=layout.positions,
            seconds=stream.pts_seconds,
            frame_of_time=np.asarray(stream.frame_of_time).reshape(len(views), spec.num_frames),
            decode_seconds=elapsed - transform_seconds,
            transform_seconds=transform_seconds,
            notes=tuple(notes),
            region=request.region,
        )

    def _room(self, num_frames: int, layout: CropLayout) -> torch.Tensor:
        return torch.empty(num_frames, layout.height, layout.width, 3, dtype=torch.uint8, pin_memory=self._pinned)

    def probe(self, source: ClipSource, frames_per_second: float) -> VideoInfo:
        """Return the information on a clip before decoding; the rate applies to frames given as an array."""
        with _opened(source, self.reader, frames_per_second) as (_, clip):
            return clip.probe()

    def span_around(
        self, source: ClipSource, seconds: float, spec: InputSpec, frames_per_second: float | None
    ) -> tuple[float | None, float | None]:
        """Return start and end of the view centred on a point in time, moved to lie inside the clip.

        Both are None if the view in the middle of the clip contains it.

        Raises:
            UsageError: The clip ends before.
        """
        info = self.probe(source, frames_per_second or spec.frames_per_second)
        first, last = info.start_seconds, info.end_seconds
        span = spec.num_frames / spec.rate_in(info.fps)
        if seconds > last:
            raise UsageError(f"query seconds = {seconds:g} is after the end of the clip, {last:.2f} s.")
        middle = (first + last - span) / 2
        if last - first <= span or middle <= seconds <= middle + span:
            return None, None
        start = min(max(seconds - span / 2, first), last - span)
        return start, min(start + span, last)


def _of_part(name: str, request: ClipRequest, start_seconds: float, end_seconds: float) -> ClipRequest:
    if request.start_seconds is not None or request.end_seconds is not None:
        raise UsageError(f"{name!r} names a part of its video; leave start-seconds and end-seconds out.")
    return replace(request, start_seconds=start_seconds, end_seconds=end_seconds)


def views_of(info: VideoInfo, spec: InputSpec, request: ClipRequest) -> tuple[TemporalView, ...]:
    """Return the temporal views of a clip for a network with this input.

    Raises:
        UsageError: The requested span is not within the clip.
    """
    return plan_views(
        info,
        num_frames=spec.num_frames,
        frames_per_second=spec.rate_in(info.fps),
        num_clips=request.views.num_clips,
        start_seconds=request.start_seconds,
        end_seconds=request.end_seconds,
        clip_placement=spec.clip_placement,
        frame_placement=spec.frame_placement,
        short_clips=spec.short_clips,
        whole_clip=spec.whole_clip,
    )


def crops_of(
    info: VideoInfo, spec: InputSpec, *, num_crops: int = 1, region: Region | None = None
) -> tuple[SpatialView, ...]:
    """Return the spatial crops of a clip's frames, or of a region; a single crop is the centre."""
    return spatial_views(
        info.height,
        info.width,
        short_side=spec.short_side,
        crop=spec.crop,
        num_crops=num_crops,
        region=region,
        resize_to=spec.resize_to,
        crop_placement=spec.crop_placement,
        longer_side=spec.longer_side,
    )


def check_not_too_elongated(path: str, info: VideoInfo, place: SpatialView) -> None:
    """Check that the resized frames of a clip are not too large.

    Raises:
        VideoError: `too_large`.
    """
    if place.resized_height * place.resized_width > MAX_RESIZED_PIXELS:
        raise VideoError(
            "too_large",
            f"{os.path.basename(path)}: its frames of {info.width} x {info.height}, or the region of them to look at, "
            f"are so elongated that they would be resized to {place.resized_width} x {place.resized_height}; look only "
            f"at what matters with --region.",
        )


def _chunk_frames(info: VideoInfo, place: SpatialView) -> int:
    """Return the number of frames per chunk, given their sizes before and after resizing."""
    pixels = max(info.width * info.height, place.resized_width * place.resized_height)
    return max(1, min(16, _CHUNK_PIXELS // pixels))


def _for_drawing(frames_thwc: torch.Tensor) -> torch.Tensor:
    """Return the frames, reduced if they are larger than a screen and would fill memory."""
    height, width = frames_thwc.shape[1:3]
    shrink = MAX_DRAWN_SIDE / max(height, width)
    return frames_thwc if shrink >= 1 else resize_short_side(frames_thwc, max(1, int(min(height, width) * shrink)))


class _File:
    """A clip in a file."""

    def __init__(self, path: str | os.PathLike[str], reader: VideoReader) -> None:
        self.path, self.reader = path, reader

    def probe(self) -> VideoInfo:
        return self.reader.probe(self.path)

    def stream(self, times_seconds: Sequence[float], *, chunk_frames: int, box: PixelBox | None) -> FrameStream:
        return self.reader.stream(self.path, times_seconds, chunk_frames=chunk_frames, box=box)


class _Array:
    """A clip given as decoded frames."""

    def __init__(self, frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], frames_per_second: float) -> None:
        try:
            array = np.asarray(frames)
        except (ValueError, TypeError, RuntimeError) as error:  # frames of several sizes, a tensor on a GPU
            raise UsageError(f"frames are no one array ({error}); give RGB uint8 (T, H, W, 3).") from error
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
            raise UsageError(
                f"frames have shape {array.shape} {array.dtype} ({type(frames).__name__}); give RGB uint8 "
                f"(T, H, W, 3), T at least 1, or the path or the bytes of a video file."
            )
        num_frames, height, width, _ = array.shape
        self.frames = array
        self.info = VideoInfo(
            container="none",
            codec="none",
            width=width,
            height=height,
            rotation_degrees=0,
            num_frames=num_frames,
            fps=frames_per_second,
            start_seconds=0.0,
            duration_seconds=num_frames / frames_per_second,
            has_edit_list=False,
            decoder="memory",
        )

    def probe(self) -> VideoInfo:
        return self.info

    def stream(self, times_seconds: Sequence[float], *, chunk_frames: int, box: PixelBox | None) -> _ArrayStream:
        shown = np.floor(np.asarray(times_seconds) * self.info.fps + 1e-6).astype(np.int64)
        needed, frame_of_time = np.unique(np.clip(shown, 0, self.info.num_frames - 1), return_inverse=True)
        top, left, bottom, right = box or (0, 0, self.info.height, self.info.width)
        chunk = FrameChunk(self.frames[needed, top:bottom, left:right], needed / self.info.fps)
        return _ArrayStream(self.info, chunk, frame_of_time, chunk_frames)


class _ArrayStream(AbstractContextManager["_ArrayStream"]):
    """Counterpart of `FrameStream` for decoded frames."""

    def __init__(
        self, info: VideoInfo, frames: FrameChunk, frame_of_time: NDArray[np.int64], chunk_frames: int
    ) -> None:
        self.info, self.frame_of_time, self.pts_seconds = info, frame_of_time, frames.pts_seconds
        self._frames, self._chunk_frames = frames, chunk_frames

    def __len__(self) -> int:
        return len(self.pts_seconds)

    def __iter__(self) -> Iterator[FrameChunk]:
        for start in range(0, len(self.pts_seconds), self._chunk_frames):
            part = slice(start, start + self._chunk_frames)
            yield FrameChunk(self._frames.frames_thwc[part], self.pts_seconds[part])

    def __exit__(self, *_error: object) -> None:
        return None


def _is_decoded(source: ClipSource) -> bool:
    """Return whether a clip is given as frames, rather than as path or bytes of a file."""
    return not isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview))


@contextmanager
def _opened(source: ClipSource, reader: VideoReader, rate: float) -> Iterator[tuple[str, _File | _Array]]:
    """Yield the name of a clip for the results, and an object that probes and streams it."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        # The decoders read files: the bytes lie in a private one while they are decoded.
        with _written(source) as path:
            yield "<bytes>", _File(path, reader)
    elif isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if is_remote(name):
            with local_copy(name, max_bytes=reader.limits.max_bytes) as copy:
                yield name, _File(copy, reader)
        else:
            yield name, _File(source, reader)
    else:
        yield "<frames>", _Array(source, rate)


@contextmanager
def _written(clip: bytes | bytearray | memoryview) -> Iterator[Path]:
    """Write a clip into a temporary file."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="nonlocal-video-")
    except OSError as error:
        raise _no_place(error) from None
    with folder as name:
        path = Path(name) / "clip"
        try:
            path.write_bytes(clip)
        except OSError as error:
            raise _no_place(error) from None
        yield path


def _no_place(error: OSError) -> VideoError:
    return VideoError(
        "internal",
        f"<bytes>: the clip cannot be written to a temporary file ({error.strerror}), from which decoders read it; "
        "name a folder with room in TMPDIR, or give the path of a file.",
    )
