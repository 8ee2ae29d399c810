"""Classification of many files: decoding in parallel with the network, one outcome per file."""

from __future__ import annotations

import logging
import math
import queue
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from nonlocal_video.errors import DeviceError, NonlocalVideoError, PartError, UsageError, VideoError
from nonlocal_video.inference.device_errors import device_failed, failure_of, no_memory
from nonlocal_video.inference.feeding import default_batch_size, default_workers
from nonlocal_video.inference.prediction import Failure, Outcome, Prediction
from nonlocal_video.inference.predictor import Predictor
from nonlocal_video.inference.preprocessing import ClipLoader, LoadedClip
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.upload import on_device
from nonlocal_video.video._messages import printable_name

_log = logging.getLogger(__name__)
_CPU = torch.device("cpu")
_Pending = tuple[str, Future[LoadedClip] | Failure]


def classify_files(
    predictor: Predictor,
    files: Iterable[str | Failure],
    request: ClipRequest,
    *,
    workers: int | None = None,
    batch_size: int | None = None,
    device: torch.device = _CPU,
) -> Generator[Outcome, None, None]:
    """Yield an outcome for every file, in order, as they are done.

    Args:
        predictor: Runs in its own thread, one group of files ahead of the caller.
        files: Paths, possibly endless; only a few are consumed ahead of time. A failure among them is its own outcome.
        request: How to look, the same for all files.
        workers: Number of decoding processes, one file each; None is `default_workers`.
        batch_size: Views per forward pass, over several files; None is `default_batch_size`.
        device: Device of the predictor, to which clips are copied while the network is busy.
    """
    spec = predictor.card.view(fast=request.fast)
    workers = default_workers(device) if workers is None else workers
    at_once = predictor.at_once if batch_size is None else batch_size
    batch_size = default_batch_size(device, spec) if batch_size is None else batch_size
    for name, number in (("workers", workers), ("batch-size", batch_size)):
        if number < 1:
            raise UsageError(f"{name} = {number} should be at least 1.")
    num_views = request.views.num_clips * request.views.num_crops
    group_size = math.ceil(max(batch_size, at_once) / num_views)
    loaders: queue.SimpleQueue[ClipLoader] = queue.SimpleQueue()
    readers = [predictor.new_reader() for _ in range(workers)]
    for reader in readers:
        loaders.put(ClipLoader(reader, pinned=device.type == "cuda"))

    def load(path: str) -> LoadedClip:
        loader = loaders.get()
        try:
            return on_device(loader.load(path, spec, request, originals=None), device)
        finally:
            loaders.put(loader)

    # The network has its own thread: it runs the next group while the caller writes the rows of the previous one.
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    network = ThreadPoolExecutor(1, thread_name_prefix="network")
    pending: deque[_Pending] = deque()
    running: deque[Future[list[Outcome]]] = deque()

    def start_group() -> None:
        group = [pending.popleft() for _ in range(min(group_size, len(pending)))]
        num_ahead = num_views * len(pending)
        running.append(network.submit(_finish, predictor, group, batch_size, device, num_ahead))

    try:
        with predictor.noting_failure():
            for file in files:
                if isinstance(file, Failure):
                    pending.append((file.path, file))
                else:
                    pending.append((file, pool.submit(load, file)))
                if len(pending) > workers + group_size:
                    start_group()
                while len(running) > 1:
                    yield from running.popleft().result()
            while pending:
                start_group()
                while len(running) > 1:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
    finally:
        network.shutdown(wait=False, cancel_futures=True)
        pool.shutdown(wait=False, cancel_futures=True)
        for reader in readers:
            reader.close()
        pool.shutdown()
        network.shutdown()
        for reader in readers:  # a reader between two files may have started a new child
            reader.close()


def answer(
    predictor: Predictor,
    group: Sequence[tuple[str, LoadedClip | Failure | Exception]],
    batch_size: int,
    *,
    num_ahead: int = 0,
) -> Iterator[Outcome]:
    """Yield the outcomes of a group of files, which share forward passes.

    Args:
        predictor: Classifies the clips.
        group: Path of each file, with its clip or the error from loading it.
        batch_size: Views per forward pass.
        num_ahead: Number of views of other files that are known to come.
    """
    outcomes: dict[int, Outcome] = {}
    clips: dict[int, LoadedClip] = {}
    for position, (path, clip) in enumerate(group):
        if isinstance(clip, Failure):
            outcomes[position] = clip
        elif isinstance(clip, Exception):
            outcomes[position] = _failure(predictor, path, clip)
        else:
            clips[position] = clip
    try:
        predictions = predictor.predict(list(clips.values()), batch_size=batch_size, num_ahead=num_ahead)
        outcomes.update(zip(clips, predictions, strict=True))
    except DeviceError:
        raise  # no clip is at fault: the rest is left to the next run
    except Exception as error:
        # One bad clip must not fail the others: run each by itself.
        for position, clip in clips.items():
            alone = len(clips) == 1
            outcomes[position] = _failure(predictor, clip.path, error) if alone else _alone(predictor, clip)
    for position in range(len(group)):
        yield outcomes[position]


def _finish(
    predictor: Predictor, pending: Sequence[_Pending], batch_size: int, device: torch.device, num_ahead: int
) -> list[Outcome]:
    group: list[tuple[str, LoadedClip | Failure | Exception]] = []
    for path, loading in pending:
        try:
            group.append((path, loading if isinstance(loading, Failure) else loading.result()))
        except DeviceError:
            raise
        except Exception as error:  # this file gets an error row, and the others continue
            if failure_of(error) == "device":  # pinned memory belongs to the device
                raise device_failed(device, error) from None
            group.append((path, error))
    return list(answer(predictor, group, batch_size, num_ahead=num_ahead))


def _alone(predictor: Predictor, clip: LoadedClip) -> Prediction | Failure:
    try:
        return predictor.predict([clip])[0]
    except DeviceError:
        raise
    except Exception as error:
        return _failure(predictor, clip.path, error)


def as_video_error(path: str, error: Exception) -> VideoError:
    """Return the error of a file's row for any failure."""
    if isinstance(error, PartError):
        error = VideoError("not_found", f"{printable_name(path)}: it has no such part: {error}")
    if failure_of(error) == "out_of_memory":
        error = no_memory("This machine", f"the frames of {printable_name(path)}")
    if not isinstance(error, VideoError):
        if not isinstance(error, NonlocalVideoError):
            _log.error("unexpected error for %r", path, exc_info=error)
        error = VideoError("internal", str(error) or type(error).__name__)
    return error


def _failure(predictor: Predictor, path: str, error: Exception) -> Failure:
    return Failure(path, predictor.card.name, as_video_error(path, error))
