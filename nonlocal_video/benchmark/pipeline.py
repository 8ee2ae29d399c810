"""Speed of the folder run and its parts: decoding alone, the network alone, and both at the same time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import torch

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.prediction import Failure
from nonlocal_video.inference.preprocessing import ClipLoader, LoadedClip
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest


def benchmark_pipeline(
    recognizer: Recognizer,
    files: Sequence[str],
    *,
    fast: bool = False,
    workers: int = 1,
    batch_size: int = 1,
    rounds: int = 3,
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure files per second of each part, in turn, so that a busy machine affects all three alike.

    Args:
        recognizer: Recognizer whose network and decoder are measured.
        files: Paths of readable clips; for the network alone all are held in memory, decoded.
        fast: Whether to use the card's cheaper view.
        workers: Number of decoding processes, alone and together with the network.
        batch_size: Number of views in one forward pass.
        rounds: Number of turns of the three; the median is reported.
        notify: Called with a sentence at each round.

    Returns:
        The machine, the settings and the figures, as JSON values; times are in seconds.

    Raises:
        UsageError: If there is no file.
        VideoError: If a file cannot be read.
    """
    if not files:
        raise UsageError("There is no file to measure with.")
    request = ClipRequest(fast=fast)
    spec = recognizer.card.view(fast=fast)
    seconds: dict[str, list[float]] = {"decode_only": [], "network_only": [], "both": []}
    with ExitStack() as stack:
        loaders = [ClipLoader(stack.enter_context(recognizer.new_reader())) for _ in range(workers)]
        pool = stack.enter_context(ThreadPoolExecutor(workers))

        def decode() -> list[LoadedClip]:
            def share(index: int) -> list[LoadedClip]:
                return [loaders[index].load(path, spec, request, originals=None) for path in files[index::workers]]

            return [clip for clips in pool.map(share, range(workers)) for clip in clips]

        def both() -> Iterator[None]:
            for outcome in classify_files(
                recognizer, files, request, workers=workers, batch_size=batch_size, device=recognizer.device
            ):
                if isinstance(outcome, Failure):
                    raise outcome.error
                yield

        child_start_seconds = _child_start_seconds(recognizer, files[0])
        clips = decode()
        # The first pass is slower; and after it the runtime is chosen.
        recognizer.predict(clips[:batch_size], batch_size=batch_size, num_ahead=2 * rounds * len(clips))
        for number in range(rounds):
            started = time.perf_counter()
            decode()
            decoded = time.perf_counter()
            recognizer.predict(clips, batch_size=batch_size)
            predicted = time.perf_counter()
            for _ in both():
                pass
            ended = time.perf_counter()
            for name, elapsed in zip(seconds, (decoded - started, predicted - decoded, ended - predicted), strict=True):
                seconds[name].append(elapsed)
            notify(f"round {number + 1} of {rounds}: " + ", ".join(f"{n} {s[-1]:.1f} s" for n, s in seconds.items()))
    rates = {name: len(files) / statistics.median(times) for name, times in seconds.items()}
    return {
        "machine": describe_machine(),
        "model": recognizer.card.name,
        "input": f"{spec.num_frames} frames of {spec.crop} pixels",
        "device": str(recognizer.device),
        "runtime": recognizer.runtime,
        "threads": torch.get_num_threads(),
        "files": len(files),
        "workers": workers,
        "batch_size": batch_size,
        "seconds": seconds,
        "files_per_second": rates,
        "child_start_seconds": child_start_seconds,
        "both_against_slower": rates["both"] / min(rates["decode_only"], rates["network_only"]),
    }


def _child_start_seconds(recognizer: Recognizer, path: str) -> float:
    """Return the start-up time of a decoding process: the first probe less a later one."""
    costs = []
    for _ in range(3):
        with recognizer.new_reader() as reader:
            started = time.perf_counter()
            reader.probe(path)
            first = time.perf_counter()
            reader.probe(path)
            costs.append((first - started) - (time.perf_counter() - first))
    return statistics.median(costs)
