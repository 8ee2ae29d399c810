"""Continuous recognition: an answer every so often on the last seconds of a camera or a video."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.context import Context, check_context, check_has_features, refined_so_far
from nonlocal_video.inference.frame_window import FrameWindow
from nonlocal_video.inference.prediction import ScoredLabel, best_of
from nonlocal_video.inference.predictor import Predictor
from nonlocal_video.inference.preprocessing import LoadedClip
from nonlocal_video.inference.read_ahead import read_ahead
from nonlocal_video.inference.request import ClipRequest, SpanOptions, lists_options
from nonlocal_video.inference.windows import WindowRequest, open_windows
from nonlocal_video.video.live import Camera, is_camera

EVERY_SECONDS = 0.5
CONTEXT_SECONDS = 60.0
MAX_REMEMBERED = 1200
"""Most answers that a new one draws on, 6 kB each for the default model."""
_WAIT_SECONDS = 0.1
"""Longest wait between two questions whether to stop."""


@dataclass(frozen=True, repr=False)
class LiveAnswer:
    """The answer for the window that ended last; times are seconds since the beginning."""

    start_seconds: float
    end_seconds: float
    labels: tuple[str, ...]
    scores: NDArray[np.float32]
    """(classes,) probabilities; in a context refined by the answers of the last minute."""
    raw_scores: NDArray[np.float32]
    """(classes,) probabilities of the window by itself."""
    context: Context
    unknown: bool | None
    """Whether a taught model knows it at all; None for another model."""
    seconds: float
    """Time that the network took."""

    def __repr__(self) -> str:
        best = self.top(1)[0]
        return f"LiveAnswer({self.start_seconds:.2f}-{self.end_seconds:.2f} s, {best.label!r} {best.score:.3f})"

    def top(self, k: int = 5) -> list[ScoredLabel]:
        """Return the k likeliest classes, best first."""
        return best_of(self.labels, self.scores, k)

    def raw_top(self, k: int = 5) -> list[ScoredLabel]:
        """Return the k likeliest classes of the window by itself, best first."""
        return best_of(self.labels, self.raw_scores, k)

    def score_of(self, label: str) -> float:
        """Return the probability of a class."""
        return float(self.scores[self.labels.index(label)])

    def to_row(self, top_k: int = 5) -> dict[str, Any]:
        """Return the answer as JSON, with the fields of a window of `timeline --json`."""
        row: dict[str, Any] = {
            "start_seconds": round(self.start_seconds, 6),
            "end_seconds": round(self.end_seconds, 6),
            "top": [asdict(one) for one in self.top(top_k)],
        }
        if self.context != "none":
            row["raw_top"] = [asdict(one) for one in self.raw_top(top_k)]
        return row if self.unknown is None else row | {"unknown": self.unknown}


class LiveAnswers:
    """Answers for windows as they come, each drawing on those of the last minute by the non-local mean."""

    def __init__(
        self, predictor: Predictor, *, context: Context = "nonlocal", context_seconds: float = CONTEXT_SECONDS
    ) -> None:
        """Begin without answers.

        Args:
            predictor: Runs the network.
            context: `nonlocal` refines each answer by earlier ones; `none` leaves it alone.
            context_seconds: How far back it looks.

        Raises:
            UsageError: A value is not allowed, or the network has no features to compare answers by.
        """
        check_context(context)
        check_has_features(predictor.network, predictor.card.name, context)
        check_above_zero("context-seconds", context_seconds)
        self._predictor, self._context, self._seconds = predictor, context, context_seconds
        self._earlier: deque[tuple[float, NDArray[np.float32], NDArray[np.float32]]] = deque(maxlen=MAX_REMEMBERED)

    def answer(self, clip: LoadedClip) -> LiveAnswer:
        """Answer for one window; call it in the order of time.

        Raises:
            DeviceError: The device has failed.
            ModelError: The network gave something that is not a number.
        """
        (prediction,) = self._predictor.predict([clip])
        (view,) = clip.views
        scores = raw_scores = prediction.scores.astype(np.float32)
        if self._context != "none" and prediction.features is not None and prediction.logits is not None:
            while self._earlier and not 0 <= view.end_seconds - self._earlier[0][0] <= self._seconds:
                self._earlier.popleft()
            self._earlier.append((view.end_seconds, prediction.logits, prediction.features))
            _, logits, features = zip(*self._earlier, strict=True)
            scores = refined_so_far(np.stack(logits), np.stack(features), first=len(logits) - 1)[0]
        return LiveAnswer(
            view.start_seconds,
            view.end_seconds,
            prediction.labels,
            scores,
            raw_scores,
            self._context,
            prediction.unknown,
            prediction.timings.forward,
        )


@lists_options
def watch(
    predictor: Predictor,
    source: str | os.PathLike[str] | int,
    *,
    every_seconds: float = EVERY_SECONDS,
    window_seconds: float | None = None,
    context: Context = "nonlocal",
    context_seconds: float = CONTEXT_SECONDS,
    realtime: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Unpack[SpanOptions],
) -> Generator[LiveAnswer, None, None]:
    """Answer continuously for a camera, or for a video as if it came from one.

    `fast`, `start_seconds`, `end_seconds` and `region` are those of `classify`.

    Args:
        predictor: Runs the network.
        source: A camera's number or device, such as 0 or `/dev/video0`; or a video file or address.
        every_seconds: From one answer to the next; a camera's come later if the machine takes longer for one.
        window_seconds: Length of the window that an answer is for; None is the model's own span.
        context: `nonlocal` refines each answer by those of the last minute like it; `none` leaves it alone.
        context_seconds: How far back the context reaches.
        realtime: Read a file no faster than it plays, and leave windows out where the network cannot follow. Else
            every window is answered, as fast as possible.
        should_stop: Asked between answers.

    Yields:
        Answers, until the video ends, the camera fails or `should_stop` says so.

    Raises:
        VideoError: The camera or the file cannot be read, or breaks.
        UsageError: An argument has a value that is not allowed.

    Example:
        >>> for answer in recognizer.watch(0):
        ...     print(answer.top(1)[0])
    """
    name, request = str(source) if isinstance(source, int) else os.fspath(source), ClipRequest.parse(**options)
    check_above_zero("every-seconds", every_seconds)
    spec = predictor.card.view(fast=request.fast)
    length = window_seconds or (None if spec.frame_stride is not None else spec.num_frames / spec.frames_per_second)
    if length is not None and every_seconds > length + 1e-6:
        raise UsageError(
            f"every-seconds = {every_seconds:g} should not exceed the window's {length:g} s: no answer would be for "
            f"what is between."
        )
    answers = LiveAnswers(predictor, context=context, context_seconds=context_seconds)
    if is_camera(name):
        if request.start_seconds is not None or request.end_seconds is not None:
            raise UsageError(f"{name!r} is a camera, which has no start and end; leave start-seconds and end-seconds.")
        frames = FrameWindow(
            spec, name=name, window_seconds=window_seconds, region=request.region, device=predictor.device
        )
        with predictor.noting_failure(), Camera(name, limits=predictor.options.limits) as camera:
            yield from follow(iter(camera), frames, answers, every_seconds, should_stop)
        return
    windows = WindowRequest(window_seconds, every_seconds, request.start_seconds, request.end_seconds, request.region)
    with (
        predictor.noting_failure(),
        predictor.new_reader() as reader,
        open_windows(reader, name, spec, windows, device=predictor.device) as opened,
        closing(read_ahead(opened.clips, 1)) as clips,
    ):
        for clip in _paced(clips, every_seconds, should_stop) if realtime else clips:
            if should_stop():
                return
            yield answers.answer(clip)


def follow(
    frames: Iterator[tuple[float, NDArray[np.uint8]]],
    window: FrameWindow,
    answers: LiveAnswers,
    every_seconds: float,
    should_stop: Callable[[], bool],
) -> Generator[LiveAnswer, None, None]:
    """Yield answers for frames that keep coming, which another thread takes; the newest window counts.

    Args:
        frames: Seconds and RGB pixels (H, W, 3); its end, by a `VideoError`, ends the answers once the last is given.
        window: Where they are kept.
        answers: Answers.
        every_seconds: Least seconds from one answer to the next.
        should_stop: Asked at least ten times a second.
    """
    came, has_ended, errors = threading.Event(), threading.Event(), []

    def take() -> None:
        try:
            for seconds, frame in frames:
                window.add(frame, seconds)
                came.set()
                if has_ended.is_set():
                    return
        except Exception as error:
            errors.append(error)
        finally:
            has_ended.set()
            came.set()

    thread = threading.Thread(target=take, name="camera", daemon=True)
    thread.start()
    try:
        last = -1.0
        while not should_stop():
            started = time.monotonic()
            if window.seconds > last and (clip := window.clip()) is not None:
                last = window.seconds
                yield answers.answer(clip)
                _wait(started + every_seconds, should_stop)
            elif has_ended.is_set():
                break
            else:
                came.clear()
                came.wait(_WAIT_SECONDS)
    finally:
        has_ended.set()
    if errors and not should_stop():
        raise errors[0]


def _paced(clips: Iterator[LoadedClip], every_seconds: float, should_stop: Callable[[], bool]) -> Iterator[LoadedClip]:
    """Yield each window when its last frame would have come; leave out those that are late."""
    first: float | None = None
    for clip in clips:
        end = clip.views[0].end_seconds
        first = time.monotonic() - end if first is None else first
        if time.monotonic() > first + end + every_seconds:
            continue
        _wait(first + end, should_stop)
        yield clip


def _wait(until: float, should_stop: Callable[[], bool]) -> None:
    while (left := until - time.monotonic()) > 0 and not should_stop():
        time.sleep(min(left, _WAIT_SECONDS))


def check_above_zero(name: str, value: float) -> None:
    """Refuse a length that is not one.

    Raises:
        UsageError: It is not a finite number above 0.
    """
    if not 0 < value < float("inf"):
        raise UsageError(f"{name} = {value:g} should be a finite number above 0.")
