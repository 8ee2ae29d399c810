"""Features of one video, and of many while the next ones are decoded."""

from __future__ import annotations

import math
import os
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import DeviceError, ModelError, UsageError, VideoError
from nonlocal_video.inference.device_errors import device_failed, failure_of
from nonlocal_video.inference.feeding import default_batch_size, default_workers
from nonlocal_video.inference.folder import as_video_error
from nonlocal_video.inference.preprocessing import LoadedClip
from nonlocal_video.inference.window_features import FeatureRequest, WindowFeatures
from nonlocal_video.inference.windows import WindowPlan, WindowRequest, open_windows
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video._messages import printable_name
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.region import Region, RegionLike

if TYPE_CHECKING:
    from nonlocal_video.inference.recognizer import Recognizer

_POLL_SECONDS = 0.1
_BATCHES_AHEAD = 4
"""Windows that the workers may together read ahead of the network, in batches."""
OpenFile = Callable[[str], AbstractContextManager[str]]
"""Gives, for a path, the one to read in its place until the end of the block, such as that of a private copy."""
_Answer = tuple[NDArray[np.float32], NDArray[np.float32]]
_Event = WindowPlan | LoadedClip | Exception | None
"""Items of a file in turn: its plan, its clips, and why it ends; None is its end."""


def window_features(
    recognizer: Recognizer,
    path: str | os.PathLike[str],
    *,
    window_seconds: float | None = None,
    stride_seconds: float | None = None,
    fast: bool = False,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    region: RegionLike = None,
    layer: str | None = None,
    batch_size: int | None = None,
) -> WindowFeatures:
    """Return the pooled features of the sliding windows of a video.

    Args:
        recognizer: Runs the network.
        path: A video file, its URL, or a part of it, such as `match.mp4#t=3,5.5`.
        window_seconds: Length of a window; None is the model's own span.
        stride_seconds: From one window to the next; None is half a window.
        fast: The model card's cheaper view.
        start_seconds: Only look from here on.
        end_seconds: Only look up to here.
        region: As for `classify`.
        layer: Dotted name of the layer to pool; None is the one before the classifier, from whose features the logits
            of a linear classifier follow. Another one is computed by PyTorch, whatever the runtime.
        batch_size: Windows in one forward pass; None is as many as suit the device.

    Returns:
        The features. Where the video breaks after some windows, it has these, `error` says why, and Python's `warnings`
        tell it.

    Raises:
        VideoError: Not even one window can be read.
        UsageError: An argument has a value that is not allowed.

    Example:
        >>> found = recognizer.features("match.mp4", stride_seconds=1)
        >>> found.features.shape, found.centres[:2]
        ((123, 1024), array([1.28, 2.28]))
    """
    windows = WindowRequest(window_seconds, stride_seconds, start_seconds, end_seconds, Region.parse(region))
    request = FeatureRequest(windows, layer, fast)
    with closing(stream_features(recognizer, [os.fspath(path)], request, workers=1, batch_size=batch_size)) as found:
        _, result = next(found)
    if isinstance(result, Exception):
        raise result
    if result.error is not None:
        warnings.warn(
            f"{result.error.message} {len(result)} of {result.num_planned} windows, up to {result.ends[-1]:.2f} s, "
            "were kept; `error` says the same.",
            stacklevel=2,
        )
    return result


def stream_features(
    recognizer: Recognizer,
    files: Iterable[str],
    request: FeatureRequest,
    *,
    workers: int | None = None,
    batch_size: int | None = None,
    open_file: OpenFile = nullcontext,
) -> Generator[tuple[str, WindowFeatures | Exception], None, None]:
    """Yield each file with its features, or with the error that prevented them, in order, as they are done.

    Windows of several files share forward passes. Only a few files and windows are held ahead of the network.

    Args:
        recognizer: Runs the network, in this thread.
        files: Paths, possibly endless.
        request: What to compute of each.
        workers: Number of decoding processes, one file each; None is as many as suit the device.
        batch_size: Windows in one forward pass; None is as many as suit the device.
        open_file: Gives what is read of each path; its errors are those of the file.

    Raises:
        UsageError: An argument has a value that is not allowed for any file.
        DeviceError: The device has failed; no file is at fault.
    """
    spec, layer = request.checked(recognizer)
    device = recognizer.device
    workers = default_workers(device) if workers is None else workers
    at_once = recognizer.at_once if batch_size is None else batch_size
    batch_size = default_batch_size(device, spec) if batch_size is None else batch_size
    for name, number in (("workers", workers), ("batch-size", batch_size)):
        if number < 1:
            raise UsageError(f"{name} = {number} should be at least 1.")
    weights = recognizer.weights_sha256()
    in_hand: deque[_Gathered] = deque()  # files in order, those that are not yielded yet
    batch: list[tuple[_Gathered, LoadedClip]] = []

    def done() -> Iterator[tuple[str, WindowFeatures | Exception]]:
        while in_hand and in_hand[0].is_done:
            one = in_hand.popleft()
            yield one.path, one.result(recognizer, spec, layer, weights)

    with (
        recognizer.noting_failure(),
        closing(_in_order(recognizer, files, spec, request.windows, workers, batch_size, open_file)) as events,
    ):
        for path, event in events:
            if not in_hand or in_hand[-1].has_ended:
                in_hand.append(_Gathered(path))
            gathered = in_hand[-1]
            if isinstance(event, LoadedClip):
                gathered.num_pending += 1
                batch.append((gathered, event))
                if len(batch) == max(batch_size, at_once):
                    num_ahead = request.windows.num_crops * sum(one.num_ahead for one in in_hand)
                    _compute(recognizer, batch, batch_size, request.layer, num_ahead)
                    batch = []
            elif isinstance(event, WindowPlan):
                gathered.plan = event
            else:
                gathered.end(event)
            yield from done()
    _compute(recognizer, batch, batch_size, request.layer, 0)
    yield from done()


@dataclass
class _Gathered:
    """Windows of a file that have come so far."""

    path: str
    plan: WindowPlan | None = None
    answers: list[_Answer] = field(default_factory=list)
    """Features and logits of each window."""
    info: VideoInfo | None = None
    """Description of the video, from the last window with an answer."""
    region: Region | None = None
    num_pending: int = 0
    """Windows that are read and not computed."""
    has_ended: bool = False
    """Whether no more windows will be read."""
    ending: Exception | None = None
    """Why no more windows could be read."""
    failure: Exception | None = None
    """Why a window has no answer; those after it are left out."""

    @property
    def is_done(self) -> bool:
        """Whether all windows that were read are computed."""
        return self.has_ended and not self.num_pending

    @property
    def num_ahead(self) -> int:
        """Number of windows that are planned and not read yet."""
        if self.plan is None or self.has_ended:
            return 0
        return len(self.plan.starts) - len(self.answers) - self.num_pending

    def end(self, error: Exception | None) -> None:
        """Note that no more windows will be read, and why."""
        self.has_ended, self.ending = True, error

    def result(
        self, recognizer: Recognizer, spec: InputSpec, layer: str, weights_sha256: str | None
    ) -> WindowFeatures | Exception:
        """Return the features, or the error that prevented them."""
        error = self.failure or self.ending
        if self.plan is None or self.info is None:
            return error or VideoError("internal", f"{printable_name(self.path)}: it gave no window.")
        features, logits = (np.stack(arrays) for arrays in zip(*self.answers, strict=True))
        plan, done = self.plan, len(self.answers)
        return WindowFeatures(
            path=self.path,
            model=recognizer.card.name,
            weights_sha256=weights_sha256,
            layer=layer,
            starts=plan.starts[:done],
            ends=plan.ends[:done],
            features=features,
            logits=logits,
            info=self.info,
            window_frames=spec.num_frames,
            window_seconds=plan.window_seconds,
            frames_per_second=spec.num_frames / plan.window_seconds,
            stride_seconds=plan.stride_seconds,
            num_planned=len(plan.starts),
            notes=(*self.info.notes, *plan.notes, *([] if self.region is None else [self.region.note])),
            error=None if error is None else as_video_error(self.path, error),
        )


def _compute(
    recognizer: Recognizer,
    batch: Sequence[tuple[_Gathered, LoadedClip]],
    batch_size: int,
    layer: str | None,
    num_ahead: int,
) -> None:
    """Answer a batch of windows; where that fails each by itself, so that one does not fail the others."""
    if not batch:
        return
    try:
        answers: Sequence[_Answer | Exception] = _answers(
            recognizer, [clip for _, clip in batch], batch_size, layer, num_ahead
        )
    except DeviceError:
        raise
    except Exception:
        answers = [_alone(recognizer, clip, layer) for _, clip in batch]
    for (gathered, clip), answer in zip(batch, answers, strict=True):
        gathered.num_pending -= 1
        if isinstance(answer, Exception):
            gathered.failure = gathered.failure or answer
        elif gathered.failure is None:
            gathered.answers.append(answer)
            gathered.info, gathered.region = clip.info, clip.region


def _alone(recognizer: Recognizer, clip: LoadedClip, layer: str | None) -> _Answer | Exception:
    try:
        return _answers(recognizer, [clip], 1, layer)[0]
    except DeviceError:
        raise
    except Exception as error:
        return error


def _answers(
    recognizer: Recognizer, clips: Sequence[LoadedClip], batch_size: int, layer: str | None, num_ahead: int = 0
) -> list[_Answer]:
    """Features (C,), or (10, C) of ten crops, and logits (classes,) of each window."""
    of_crop = [
        replace(clip, crops=(crop,), positions=(position,))
        for clip in clips
        for crop, position in zip(clip.crops, clip.positions, strict=True)
    ]
    predictions = iter(recognizer.predict(of_crop, batch_size=batch_size, layer=layer, num_ahead=num_ahead))
    found = []
    for clip in clips:
        crops = [next(predictions) for _ in clip.crops]
        features = np.stack([_given(crop.features) for crop in crops])
        logits = np.stack([_given(crop.logits) for crop in crops])
        found.append((features[0] if len(crops) == 1 else features, logits.mean(axis=0)))
    return found


def _given(array: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if array is None:
        raise ModelError("The network gave no features.")
    return array


class _Reading:
    """A file whose windows are read in another thread."""

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.events: queue.Queue[_Event] = queue.Queue(size)


def _in_order(
    recognizer: Recognizer,
    files: Iterable[str],
    spec: InputSpec,
    request: WindowRequest,
    workers: int,
    batch_size: int,
    open_file: OpenFile,
) -> Generator[tuple[str, _Event], None, None]:
    """Yield the events of all files, one file after another, while others are read ahead."""
    device = recognizer.device
    readers: queue.SimpleQueue[VideoReader] = queue.SimpleQueue()
    every_reader = [recognizer.new_reader() for _ in range(workers)]
    for reader in every_reader:
        readers.put(reader)
    stop = threading.Event()
    depth = 2 + math.ceil(_BATCHES_AHEAD * batch_size / workers)

    def put(reading: _Reading, event: _Event) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                reading.events.put(event, timeout=_POLL_SECONDS)
                return

    def read(reading: _Reading) -> None:
        reader = readers.get()
        try:
            with (
                open_file(reading.path) as path,
                open_windows(reader, path, spec, request, device=device) as windows,
            ):
                put(reading, windows.plan)
                for clip in windows.clips:
                    if stop.is_set():
                        return
                    put(reading, clip)
            put(reading, None)
        except Exception as error:  # this file has no more windows, and the others continue
            put(reading, device_failed(device, error) if failure_of(error) == "device" else error)
        finally:
            readers.put(reader)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    pending: deque[_Reading] = deque()

    def events_of(reading: _Reading) -> Iterator[tuple[str, _Event]]:
        while True:
            event = reading.events.get()
            if isinstance(event, DeviceError):
                raise event
            yield reading.path, event
            if event is None or isinstance(event, Exception):
                return

    try:
        for path in files:
            pending.append(_Reading(path, depth))
            pool.submit(read, pending[-1])
            if len(pending) > workers + batch_size:
                yield from events_of(pending.popleft())
        while pending:
            yield from events_of(pending.popleft())
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for reader in every_reader:
            reader.close()
        pool.shutdown()
        for reader in every_reader:  # one between two files may have started a new child
            reader.close()
