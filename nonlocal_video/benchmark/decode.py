"""Decoding speed: the frames of one view in a cold and a warm child process, and whole files.

A cold child has yet to be started. A warm one runs but knows nothing of the file, as between the files of a folder. In
both cases the file is in the system's cache, since it was probed before.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.prediction import VIDEO_FIELDS, printable
from nonlocal_video.inference.preprocessing import views_of
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.video import DecoderChoice, VideoInfo, VideoReader, write_video

_PACKAGES = ("av", "decord")
_MOMENTS_PER_FRAME = (1, 8)
"""Number of times per mean frame interval at which a file is searched for its frames; 1 suits a constant rate."""


@dataclass
class _Reading:
    """Repeated readings of the same frames."""

    times_seconds: list[float]
    """Times that are read."""
    seconds: dict[str, list[float]]
    """State of the child -> seconds of each reading."""
    shape: tuple[int, ...] = ()
    """Shape (K, H, W, 3) of the K distinct frames."""
    info: VideoInfo | None = None
    """Description of the file, with the decoder that served the request and its notes."""


@dataclass
class _Case:
    """One row: a file and the requested decoder."""

    path: str
    decoder: DecoderChoice
    info: VideoInfo | None = None
    error: VideoError | None = None
    reason_to_skip: str | None = None
    readings: dict[str, _Reading] = field(default_factory=dict)


def benchmark_decode(
    files: Sequence[str],
    card: ModelCard,
    *,
    fast: bool = False,
    decoders: Sequence[DecoderChoice] = ("auto",),
    rounds: int = 3,
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Read every file with every decoder in each round, through the `VideoReader` that the whole project uses.

    Args:
        files: Paths of videos. Each gets a row per decoder; a file that cannot be read has its error code there.
        card: Card of the model whose view is read.
        fast: Whether to read the card's cheaper view.
        decoders: Decoders to time. `auto` is the one that serves the file; `decord` is not timed on a file that `auto`
            would not give it.
        rounds: Number of readings of each kind; the median is reported.
        notify: Called with a sentence at each round.

    Returns:
        The machine, the settings and a row for each case, as JSON values; times are in seconds.

    Raises:
        UsageError: If there is no file, or a requested decoder is not installed.
    """
    if not files:
        raise UsageError("There is no file to measure with.")
    if not decoders or rounds < 1:
        raise UsageError(f"decoders = {list(decoders)} should name one, and {rounds = } should be at least 1.")
    spec = card.view(fast=fast)
    cases = [_Case(path, decoder) for path in files for decoder in dict.fromkeys(decoders)]
    with VideoReader() as serving:
        for case in cases:
            with _noting_errors(case):
                _prepare(case, spec, serving)
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-") as folder:
        other = Path(folder) / "other.mp4"
        write_video(other, [np.zeros((16, 16, 3), np.uint8)] * 2, fps=25)
        for number in range(rounds):
            for case in cases:
                if case.error is None and case.reason_to_skip is None:
                    with _noting_errors(case):
                        _read(case, other)
            notify(f"round {number + 1} of {rounds}")
    rate = f"{spec.frames_per_second:g} a second" if spec.frame_stride is None else f"stride {spec.frame_stride}"
    return {
        "machine": describe_machine(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "model": card.name,
        "view": f"{spec.num_frames} frames, {rate}",
        "rounds": rounds,
        "rows": [_row(case) for case in cases],
    }


@contextmanager
def _noting_errors(case: _Case) -> Iterator[None]:
    try:
        yield
    except VideoError as error:
        case.error = error


def _prepare(case: _Case, spec: InputSpec, serving: VideoReader) -> None:
    """Probe the file and find the times of its frames; `serving` tells which decoder serves it."""
    case.info = serving.probe(case.path)
    with VideoReader(decoder=case.decoder) as reader:
        if case.decoder == "decord":
            reader.probe(case.path)  # fails where decord is not installed
            if case.info.decoder != "decord":
                case.reason_to_skip = "decord is not measured to be exact on this file"
                return
        case.readings["whole"] = _Reading(_frame_times(case.path, case.info, reader), {"warm": []})
    (view,) = views_of(case.info, spec, ClipRequest())
    case.readings["view"] = _Reading(list(view.times_seconds), {"cold": [], "warm": []})


def _frame_times(path: str, info: VideoInfo, reader: VideoReader) -> list[float]:
    """Return a time within every frame; a frame shown for a small part of the mean interval can be missed."""
    found = np.empty(0)
    for moments_per_frame in _MOMENTS_PER_FRAME:
        count = moments_per_frame * info.num_frames
        moments = info.start_seconds + (np.arange(count) + 0.5) * (info.duration_seconds / count)
        # The plan with the frames is known before any is decoded; closing the stream ends the child at its work.
        with reader.stream(path, moments.tolist()) as stream:
            found = stream.pts_seconds
        if len(found) == info.num_frames:
            break
    return [float(moment) for moment in found]


def _read(case: _Case, other: Path) -> None:
    """Read the view twice and the whole file, with one child."""
    with VideoReader(decoder=case.decoder) as reader:
        _time(case, reader, "view", "cold")
        for what in ("view", "whole"):
            reader.probe(other)  # the child remembers the index of its last file
            _time(case, reader, what, "warm")


def _time(case: _Case, reader: VideoReader, what: str, child: str) -> None:
    reading = case.readings[what]
    num_frames = 0
    started = time.perf_counter()
    reader.probe(case.path)  # as in every use of a clip: the length decides which frames are needed
    with reader.stream(case.path, reading.times_seconds) as stream:
        for chunk in stream:
            num_frames += len(chunk.frames_thwc)
            reading.shape = (num_frames, *chunk.frames_thwc.shape[1:])
    reading.seconds[child].append(time.perf_counter() - started)
    reading.info = stream.info


def _row(case: _Case) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": printable(case.path),
        "asked_decoder": case.decoder,
        "status": "error" if case.error else "skipped" if case.reason_to_skip else "ok",
        "error": {"code": case.error.code, "message": case.error.message} if case.error else None,
        "reason": case.reason_to_skip,
        "video": {name: getattr(case.info, name) for name in VIDEO_FIELDS} if case.info else None,
        "view": None,
        "whole": None,
        "notes": [],
    }
    if row["status"] != "ok":
        return row
    view, whole = case.readings["view"], case.readings["whole"]
    assert view.info is not None
    assert whole.info is not None
    return {
        **row,
        "view": {
            "decoder": view.info.decoder,
            "num_times": len(view.times_seconds),
            "shape": list(view.shape),
            "seconds": view.seconds,
            "cold_seconds": statistics.median(view.seconds["cold"]),
            "warm_seconds": statistics.median(view.seconds["warm"]),
        },
        "whole": {
            "decoder": whole.info.decoder,
            "shape": list(whole.shape),
            "seconds": whole.seconds,
            "warm_seconds": statistics.median(whole.seconds["warm"]),
            "frames_per_second": whole.shape[0] / statistics.median(whole.seconds["warm"]),
        },
        "notes": list(dict.fromkeys((*view.info.notes, *whole.info.notes))),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
