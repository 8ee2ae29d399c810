"""Measure what fits into the device's memory, and how fast it answers."""

from __future__ import annotations

import logging
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import nonlocal_video as nlv
from gpu.answers import LOGITS, relative_difference
from gpu.clips import moving_pattern, write_clips
from gpu.harness import Context, require
from nonlocal_video.errors import VideoError
from nonlocal_video.inference.preprocessing import ClipLoader, LoadedClip
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.runtimes.runner import NetworkRunner

_BATCH = 8
_LEAST_SHARE = 0.9
"""Share of the slower stage's rate that decoding beside the network has to reach."""


def out_of_memory(context: Context) -> None:
    """Limit the memory: the batch is halved until it fits, with the same answers; what cannot fit is an error."""
    with nlv.load(context.model, device=context.device) as recognizer:
        clips = _clips(context, recognizer, _BATCH)

        def scores(batch_size: int) -> torch.Tensor:
            return torch.stack([torch.from_numpy(p.scores) for p in recognizer.predict(clips, batch_size=batch_size)])

        limit: Callable[[float], Any]
        if context.miniature:
            limit, between, too_little = _simulated_limit, 2.0, 0.0
            wanted = scores(_BATCH)
        else:
            total = torch.cuda.mem_get_info()[1]
            one, all_together = _reserved(lambda: scores(1)), _reserved(lambda: scores(_BATCH))
            context.note(gib_of_batch_1=one / 2**30, **{f"gib_of_batch_{_BATCH}": all_together / 2**30})
            require(all_together > one, "A batch takes no more memory than one view.")
            wanted = scores(_BATCH)
            limit, between, too_little = _limit, (one + (all_together - one) / 3) / total, 1e6 / total
        with limit(between), _warnings() as said:
            found = scores(_BATCH)
        halved = [line for line in said if "halved to" in line]
        difference = relative_difference(found, wanted)
        context.note(warnings=halved, difference=difference)
        require(bool(halved), "Nothing said that the batch was halved.")
        require(difference <= LOGITS, f"Halved batches give other scores, by {difference:.1e} of the largest.")
        with limit(too_little):
            try:
                scores(1)
            except VideoError as error:
                context.note(refused_with=error.message)
                require(error.code == "out_of_memory", f"The error's code is {error.code}, not out_of_memory.")
            else:
                require(False, "Without memory it answered all the same.")
        require(relative_difference(scores(1), wanted) <= LOGITS, "Afterwards it gives other scores.")


def speed(context: Context) -> None:
    """Time batches of views on the device; a large batch gives each view the logits that it has alone."""
    sizes = (1, 2) if context.miniature else (1, 8, 32, 96)
    with nlv.load(context.model, device=context.device) as recognizer:
        spec = recognizer.card.input
        for size in sizes:
            shape = size, 3, spec.num_frames, spec.crop, spec.crop
            generator = torch.Generator(context.device).manual_seed(size)
            inputs = torch.randn(shape, device=context.device, generator=generator)
            if not context.miniature:
                torch.cuda.reset_peak_memory_stats()
            try:
                logits = recognizer.forward(inputs)
            except VideoError as error:
                require(error.code == "out_of_memory" and size > 1, f"A batch of {size}: {error}")
                context.note(**{f"batch_{size}": "out_of_memory"})
                continue
            ends = [0, size - 1]
            alone = torch.cat([recognizer.forward(inputs[index : index + 1]) for index in ends])
            together = torch.stack([logits[index] for index in ends])
            difference = relative_difference(together, alone)
            seconds = _median_seconds(lambda inputs=inputs: recognizer.forward(inputs), context)
            figures = {"views_per_second": size / seconds, "difference": difference}
            if not context.miniature:
                figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            context.note(**{f"batch_{size}": figures})
            require(difference <= LOGITS, f"In a batch of {size} a view's logits differ by {difference:.1e}.")


def pipeline(context: Context) -> None:
    """Run a folder with few and many decoding workers, beside what `nvidia-smi dmon` sees of the device."""
    from nonlocal_video.benchmark.pipeline import benchmark_pipeline

    workers = (1, 2) if context.miniature else (1, 8, 16)
    width, height = (64, 48) if context.miniature else (340, 256)
    seconds = 2.0 if context.miniature else 4.0
    names = [f"{number}.mp4" for number in range(2 if context.miniature else 8)]
    files = write_clips(
        context.folder / "clips", names, seconds=seconds, width=width, height=height, frames=context.frames
    )
    context.note(clips=f"{seconds:g} s of {width} x {height}, {context.frames}")
    slow = []
    with nlv.load(context.model, device=context.device) as recognizer:
        for count in workers:
            times = 1 if context.miniature else (2 if count == 1 else 16)
            with _utilisation(context) as seen:
                found = benchmark_pipeline(
                    recognizer,
                    files * times,
                    workers=count,
                    batch_size=2 if context.miniature else 16,
                    rounds=1 if context.miniature else 3,
                )
            figures = {name: found[name] for name in ("files_per_second", "both_against_slower", "batch_size")}
            context.note(**{f"workers_{count}": figures | {"dmon": list(seen)}})
            if found["both_against_slower"] < _LEAST_SHARE:
                slow.append(f"{count} workers: {found['both_against_slower']:.0%}")
    if not context.miniature:
        fed = f"clips are {context.frames}"
        require(
            not slow, f"Of the slower stage's rate the folder run reaches {', '.join(slow)} ({fed}); 90% is wanted."
        )


def _clips(context: Context, recognizer: Any, count: int) -> list[LoadedClip]:
    width, height = (64, 48) if context.miniature else (320, 240)
    loader = ClipLoader(recognizer.new_reader())
    return [
        loader.load(
            moving_pattern(seed, seconds=3.0, width=width, height=height),
            recognizer.card.input,
            ClipRequest(),
            originals=None,
        )
        for seed in range(count)
    ]


def _reserved(work: Callable[[], Any]) -> int:
    """Return the bytes that the allocator held at most."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_reserved()


@contextmanager
def _limit(fraction: float) -> Iterator[None]:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(fraction)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@contextmanager
def _simulated_limit(views: float) -> Iterator[None]:
    """Let batches of more views end as they would on a device that is full."""
    run_network = NetworkRunner.__call__

    def limited(self: NetworkRunner, inputs: torch.Tensor, *given: Any, **options: Any) -> Any:
        if len(inputs) > views:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated).")
        return run_network(self, inputs, *given, **options)

    NetworkRunner.__call__ = limited  # type: ignore[method-assign]
    try:
        yield
    finally:
        NetworkRunner.__call__ = run_network  # type: ignore[method-assign]


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what the package warns of."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("nonlocal_video")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _median_seconds(work: Callable[[], Any], context: Context, times: int = 5) -> float:
    taken = []
    for _ in range(times):
        _finish(context)
        started = time.perf_counter()
        work()
        _finish(context)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _finish(context: Context) -> None:
    if not context.miniature:
        torch.cuda.synchronize()


@contextmanager
def _utilisation(context: Context) -> Iterator[list[Any]]:
    """Give percent of time in which a kernel ran, second by second, once the block has ended."""
    seen: list[Any] = []
    if context.miniature or shutil.which("nvidia-smi") is None:
        seen.append("nvidia-smi was not run")
        yield seen
        return
    output = Path(context.folder / "dmon.txt")
    with open(output, "w") as file:
        monitor = subprocess.Popen(["nvidia-smi", "dmon", "-i", "0", "-s", "u", "-d", "1"], stdout=file)
        try:
            yield seen
        finally:
            monitor.terminate()
            monitor.wait()
    text = output.read_text()
    print(text, flush=True)
    seen += streaming_percent(text)


def streaming_percent(dmon: str) -> list[int]:
    """Return the column `sm` of what `nvidia-smi dmon` printed; unknown values are left out."""
    column, values = None, []
    for line in dmon.splitlines():
        words = line.lstrip("# ").split()
        if "sm" in words:
            column = words.index("sm")
        elif column is not None and not line.startswith("#") and words[column : column + 1] and words[column].isdigit():
            values.append(int(words[column]))
    return values
