"""Time of a forward pass for one view, of models, runtimes, views and batch sizes in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from nonlocal_video.analysis.counting import count_run
from nonlocal_video.analysis.networks import nonlocal_blocks
from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.device_errors import failure_of
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.runtimes.choice import Runtime
from nonlocal_video.inference.runtimes.device import choose_device
from nonlocal_video.models.card import InputSpec
from nonlocal_video.zoo.catalogue import build, entries
from nonlocal_video.zoo.store import weights_path

Weights = Literal["trained", "random"]
Backend = Literal["torch", "openvino", "eager"]
"""A runtime of the Recognizer; or eager: the network run by PyTorch as it was trained, its batch norms not folded."""


@dataclass
class _Case:
    """One row: a network, its backend, one of its views and a batch size."""

    model: str
    weights: Weights
    recognizer: Recognizer
    backend: Backend
    view: Literal["full", "fast"]
    spec: InputSpec
    batch_size: int
    macs: int = 0
    """Number of multiply-accumulates of one view."""
    seconds: list[float] = field(default_factory=list)
    """Wall-clock time of each timed pass."""
    first_seconds: float | None = None
    """Wall-clock time of the first pass, in which OpenVINO compiles the network."""
    peak_bytes: int | None = None
    """Peak memory of a CUDA device during a pass, without the weights and the input."""
    fits: bool = True

    @property
    def network(self) -> nn.Module:
        """Module that runs, as PyTorch has it."""
        return self.recognizer.network if self.backend == "eager" else self.recognizer.inference_network

    def run(self, inputs: torch.Tensor) -> None:
        if self.backend == "eager":
            with torch.inference_mode():
                self.network(inputs)
        else:
            self.recognizer.forward(inputs)

    @property
    def seconds_per_view(self) -> list[float]:
        return [seconds / self.batch_size for seconds in self.seconds]

    @property
    def input_shape(self) -> tuple[int, int, int, int, int]:
        return self.batch_size, 3, self.spec.num_frames, self.spec.crop, self.spec.crop


def benchmark_model(
    models: Sequence[str],
    *,
    device: str = "auto",
    runtimes: Sequence[Backend] = ("torch",),
    batch_sizes: Sequence[int] = (1,),
    rounds: int = 5,
    threads: int | None = None,
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Time every case in every round, so that a busy machine affects all alike and ratios come from one run.

    The input is noise on the device; decoding, resizing and normalising a clip are not measured.

    Args:
        models: Models as `open_model` takes them.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, the same for all runtimes.
        runtimes: `torch` and `openvino` as the Recognizer takes them, and `eager`: the network as it was trained.
        batch_sizes: Numbers of views in one forward pass.
        rounds: Number of timed passes of each case, after warm-up.
        threads: Number of PyTorch's threads; None leaves its default.
        notify: Called with a sentence at each round.

    Returns:
        The machine, the settings and a row for each case, as JSON values.

    Raises:
        UsageError: If there is nothing to measure.
        ModelError: If there is no such model.
    """
    for name, numbers in (("batch-size", batch_sizes), ("rounds", [rounds]), ("threads", [threads or 1])):
        if not numbers or min(numbers) < 1:
            raise UsageError(f"{name} = {', '.join(map(str, numbers))} should be whole numbers of at least 1.")
    if not models:
        raise UsageError("There is no model to measure.")
    unknown = [runtime for runtime in runtimes if runtime not in get_args(Backend)]
    if unknown or not runtimes:
        raise UsageError(f"runtime = {', '.join(runtimes)} should be one or some of {', '.join(get_args(Backend))}.")
    target = choose_device(device, runtime="openvino" if "openvino" in runtimes else "torch")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with ExitStack() as stack:
            cases = []
            for model in dict.fromkeys(models):
                found: dict[Backend, Recognizer] = {}
                for backend in dict.fromkeys(runtimes):
                    runtime: Runtime = "torch" if backend == "eager" else backend
                    found[backend], weights = open_model(model, device=str(target), runtime=runtime)
                    stack.enter_context(found[backend])
                if weights == "random":
                    notify(f"{model}: its weights are not here; the network is timed newly initialised")
                cases += _cases(found, weights, batch_sizes)
            for case in cases:
                _warm_up(case)
            for number in range(rounds):
                for case in cases:
                    if case.fits:
                        case.seconds.append(_timed(case))
                notify(f"round {number + 1} of {rounds}")
            return {
                "machine": describe_machine(),
                "device": str(target),
                "device_name": torch.cuda.get_device_name(target) if target.type == "cuda" else None,
                # PyTorch's default on newer GPUs: factors of convolutions are rounded to 10 bits, sums are float32.
                "tf32_convolutions": torch.backends.cudnn.allow_tf32 if target.type == "cuda" else None,
                "openvino": version("openvino") if "openvino" in runtimes else None,
                "threads": torch.get_num_threads(),
                "rounds": rounds,
                "rows": [_row(case, cases[0]) for case in cases],
            }
    finally:
        torch.set_num_threads(before)


def open_model(name: str, *, device: str = "auto", runtime: Runtime = "torch") -> tuple[Recognizer, Weights]:
    """Open a model; a catalogue network whose weights are not here gets random ones.

    The time of a pass does not depend on the weights, except that blocks which add exactly zero are skipped, and new
    ones do. Random weights therefore get a last layer that is not zero, so that the blocks run as trained ones would.

    Args:
        name: A catalogue name, a .safetensors file saved by this project, or a training run's folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        runtime: Runtime as for `load`.
    """
    if name not in entries() or weights_path(name).is_file() or Path(name).is_file():
        return load(name, device=device, runtime=runtime), "trained"
    network = build(name)
    for block in nonlocal_blocks(network).values():
        for parameter in (*block.W.parameters(), *block.bn.parameters()):
            nn.init.normal_(parameter, std=0.01)
    return Recognizer(network, entries()[name].card, device=device, runtime=runtime), "random"


def multiply_accumulates(network: nn.Module, spec: InputSpec) -> int:
    """Count the multiply-accumulates of one view, without blocks that add exactly zero."""
    return count_run(network, (1, 3, spec.num_frames, spec.crop, spec.crop)).macs


def _cases(recognizers: Mapping[Backend, Recognizer], weights: Weights, batch_sizes: Sequence[int]) -> list[_Case]:
    card = next(iter(recognizers.values())).card
    views: list[tuple[Literal["full", "fast"], InputSpec]] = [("full", card.input)]
    if card.fast_input is not None:
        views.append(("fast", card.fast_input))
    cases = []
    for view, spec in views:
        for size in dict.fromkeys(batch_sizes):
            for backend, recognizer in recognizers.items():
                case = _Case(card.name, weights, recognizer, backend, view, spec, size)
                case.macs = multiply_accumulates(case.network, spec)
                cases.append(case)
    return cases


def _warm_up(case: _Case) -> None:
    """Run a case once to see whether it fits, and on a GPU again for its memory."""
    try:
        _first_passes(case)
    except (RuntimeError, MemoryError, VideoError) as error:
        # The recognizer tells it as a VideoError, `eager` as PyTorch does.
        code = error.code if isinstance(error, VideoError) else failure_of(error)
        if code != "out_of_memory":
            raise
        case.fits = False
    if not case.fits and case.recognizer.device.type == "cuda":
        torch.cuda.empty_cache()  # after the except clause: the exception holds the tensors of the failed pass


def _first_passes(case: _Case) -> None:
    device = case.recognizer.device
    case.first_seconds = _timed(case)
    if device.type == "cuda":
        inputs = _inputs(case)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        case.run(inputs)
        torch.cuda.synchronize(device)
        case.peak_bytes = torch.cuda.max_memory_allocated(device) - held


def _timed(case: _Case) -> float:
    inputs = _inputs(case)
    _synchronise(case.recognizer.device)
    started = time.perf_counter()
    case.run(inputs)
    _synchronise(case.recognizer.device)
    return time.perf_counter() - started


def _inputs(case: _Case) -> torch.Tensor:
    """Return noise in the memory layout of a clip's views."""
    return torch.randn(case.input_shape, device=case.recognizer.device)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _row(case: _Case, first: _Case) -> dict[str, Any]:
    recognizer = case.recognizer
    median = statistics.median(case.seconds_per_view) if case.fits else None
    # Ratios within rounds: anything that slows a whole round down cancels.
    pairs = zip(case.seconds_per_view, first.seconds_per_view, strict=True) if case.fits and first.fits else ()
    ratios = [this / other for this, other in pairs]
    return {
        "model": case.model,
        "weights": case.weights,
        "runtime": case.backend,
        "view": case.view,
        "num_frames": case.spec.num_frames,
        "crop": case.spec.crop,
        "batch_size": case.batch_size,
        "nonlocal_blocks": len(recognizer.nonlocal_layers()),
        "nonlocal_blocks_run": len(nonlocal_blocks(case.network)),
        "gmacs_per_view": case.macs / 1e9,
        "fits": case.fits,
        "seconds_of_first_pass": case.first_seconds,
        "seconds": case.seconds,
        "seconds_per_view": median,
        "quartiles_of_seconds_per_view": _quartiles(case.seconds_per_view),
        "views_per_second": 1 / median if median else None,
        "gmacs_per_second": case.macs / 1e9 / median if median else None,
        "time_of_first_row": statistics.median(ratios) if ratios else None,
        "peak_mib": None if case.peak_bytes is None else case.peak_bytes / 2**20,
    }


def _quartiles(numbers: Sequence[float]) -> list[float] | None:
    """Return the first and third quartile."""
    if not numbers:
        return None
    if len(numbers) == 1:
        return [numbers[0], numbers[0]]
    first, _, third = statistics.quantiles(numbers, n=4, method="inclusive")
    return [first, third]
