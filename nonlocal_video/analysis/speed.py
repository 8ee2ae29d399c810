"""Time and peak memory of a forward pass, measured so that the figures can be compared."""

from __future__ import annotations

import gc
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

_CHILD_SECONDS = 600


@dataclass(frozen=True)
class Speed:
    """Measured forward passes of a network at one input shape on one device."""

    network: str
    """Name of the network."""
    input_shape: tuple[int, ...]
    """Shape of the input, batch first."""
    dtype: str
    """Type of weights and input."""
    device: str
    """Device of the runs."""
    hardware: str
    """Name of the device, or of the processor's architecture."""
    num_threads: int
    """Number of CPU threads inside an operator."""
    seconds: tuple[float, ...]
    """Seconds of every timed run, in the order of the runs."""
    warmup_runs: int
    """Number of runs before these."""
    peak_bytes: int | None
    """Peak memory beyond what was allocated before the pass; None if it was not measured."""
    peak_method: str
    """Method of measuring the memory: resident memory of a fresh process, or the device's allocator."""

    def __post_init__(self) -> None:
        if not self.seconds or min(self.seconds) <= 0:
            raise ValueError(f"seconds = {self.seconds} should have at least one run, each above 0.")

    @property
    def median_seconds(self) -> float:
        """Median time of a run."""
        return statistics.median(self.seconds)

    @property
    def quartile_seconds(self) -> tuple[float, float]:
        """First and third quartile of the runs."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third

    @property
    def clips_per_second(self) -> float:
        """Batch size over the median time."""
        return self.input_shape[0] / self.median_seconds

    def to_row(self) -> dict[str, Any]:
        """Return the figures as column -> plain value."""
        first, third = self.quartile_seconds
        return {
            **asdict(self),
            "input_shape": list(self.input_shape),
            "seconds": list(self.seconds),
            "num_runs": len(self.seconds),
            "median_seconds": self.median_seconds,
            "first_quartile_seconds": first,
            "third_quartile_seconds": third,
            "clips_per_second": self.clips_per_second,
            "torch": torch.__version__,
            "platform": f"{platform.system()} {platform.machine()}",
        }


def measure_speed(
    networks: Mapping[str, nn.Module],
    input_shape: Sequence[int],
    *,
    device: str | torch.device = "cpu",
    num_runs: int = 10,
    warmup_runs: int = 2,
    memory: bool = True,
) -> list[Speed]:
    """Time networks in eval mode, one run of each in turn, so that disturbances affect all of them alike.

    Args:
        networks: Name -> a module that takes one tensor. Modules are put into eval mode and onto the device for the
            measurement, and restored afterwards.
        input_shape: Shape of the input, batch first.
        device: Any device of this machine; it is synchronised before the clock is read.
        num_runs: Number of timed runs of each network.
        warmup_runs: Number of runs before these, in which libraries compile, allocate and choose algorithms.
        memory: Whether to measure the peak memory as well. On a CPU this starts a process for each network.

    Raises:
        ValueError: If a number of runs is out of range.

    Example:
        >>> (speed,) = measure_speed({"conv": nn.Conv2d(3, 8, 3)}, (1, 3, 32, 32), num_runs=3, memory=False)
        >>> len(speed.seconds), speed.median_seconds > 0
        (3, True)
    """
    if num_runs < 1 or warmup_runs < 0:
        raise ValueError(f"{num_runs = } should be at least 1 and {warmup_runs = } at least 0.")
    target = torch.device(device)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    peaks: dict[str, tuple[int | None, str]] = {}
    homes = {name: (network.training, _device_of(network)) for name, network in networks.items()}
    try:
        for network in networks.values():
            network.eval()
        for name, network in networks.items():
            peaks[name] = peak_memory(network, input_shape, device=target) if memory else (None, "not measured")
        for network in networks.values():
            network.to(target)
        with torch.inference_mode():
            clip = torch.randn(tuple(input_shape), device=target)
            for run in range(warmup_runs + num_runs):
                for name, network in networks.items():
                    elapsed = _timed(lambda network=network: network(clip), target)  # type: ignore[misc]
                    if run >= warmup_runs:
                        seconds[name].append(elapsed)
    finally:
        for name, network in networks.items():
            network.train(homes[name][0])
            network.to(homes[name][1])
    return [
        Speed(
            network=name,
            input_shape=tuple(input_shape),
            dtype="float32",
            device=str(target),
            hardware=_hardware(target),
            num_threads=torch.get_num_threads(),
            seconds=tuple(seconds[name]),
            warmup_runs=warmup_runs,
            peak_bytes=peaks[name][0],
            peak_method=peaks[name][1],
        )
        for name in networks
    ]


def peak_memory(
    network: nn.Module, input_shape: Sequence[int], *, device: str | torch.device = "cpu"
) -> tuple[int | None, str]:
    """Measure the bytes that one forward pass takes beyond the weights and the input; return them and the method.

    On a CPU a fresh process runs the pass and reads its own peak of resident memory. This includes the operators'
    scratch space, which PyTorch's allocators do not report, and no memory left by an earlier run.
    """
    target = torch.device(device)
    if target.type == "cpu":
        return _peak_of_fresh_process(network, input_shape)
    backend = _backend(target)
    if not hasattr(backend, "max_memory_allocated"):
        return None, f"{target.type} does not report its peak memory"
    home = _device_of(network)
    try:
        network.to(target)
        with torch.inference_mode():
            clip = torch.randn(tuple(input_shape), device=target)
            gc.collect()
            backend.synchronize(target)
            backend.reset_peak_memory_stats(target)
            before = backend.memory_allocated(target)
            network(clip)
            backend.synchronize(target)
            return backend.max_memory_allocated(target) - before, f"{target.type} allocator"
    finally:
        network.to(home)


def _timed(call: Callable[[], Any], device: torch.device) -> float:
    _synchronise(device)
    started = time.perf_counter()
    call()
    _synchronise(device)
    return time.perf_counter() - started


def _synchronise(device: torch.device) -> None:
    """Wait for the device's pending work; a CPU has none when a call returns."""
    if device.type != "cpu":
        _backend(device).synchronize(*([] if device.type == "mps" else [device]))


def _backend(device: torch.device) -> Any:
    """Return torch.cuda, torch.xpu, torch.mps, ..."""
    return getattr(torch, device.type)


def _hardware(device: torch.device) -> str:
    if device.type == "cpu":
        return f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    backend = _backend(device)
    return str(backend.get_device_name(device)) if hasattr(backend, "get_device_name") else device.type


def _device_of(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _peak_of_fresh_process(network: nn.Module, input_shape: Sequence[int]) -> tuple[int | None, str]:
    """Measure in a spawned process; a forked one would share its parent's pages."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, network, tuple(input_shape), torch.get_num_threads())
    child = context.Process(target=_report_peak, args=arguments, daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(_CHILD_SECONDS):
            return None, f"the measuring process gave no answer in {_CHILD_SECONDS} s"
        return receiver.recv(), "peak resident memory of a fresh process"
    except EOFError:
        child.join()
        return None, f"the measuring process ended with status {child.exitcode}"
    finally:
        child.kill()
        child.join()


def _report_peak(sender: Any, network: nn.Module, input_shape: tuple[int, ...], num_threads: int) -> None:
    """Run a pass in the child and send its peak memory."""
    torch.set_num_threads(num_threads)
    with torch.inference_mode():
        # Weights arrive in shared memory, and their pages count from their first use, which has to be before.
        for tensor in [*network.parameters(), *network.buffers()]:
            tensor.data = tensor.data.clone()
        clip = torch.randn(input_shape)
        nn.Conv3d(3, 4, 3)(torch.randn(1, 3, 4, 8, 8))  # loads the convolution library's code
        gc.collect()
        before = _reset_resident_peak()
        network(clip)
        sender.send(max(0, _resident_peak() - before))


def _reset_resident_peak() -> int:
    """Return the bytes resident now and restart the peak from here (Linux); elsewhere return the peak so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _resident_peak()
    return _status_bytes("VmRSS")


def _resident_peak() -> int:
    """Return the peak resident memory. On Linux not by `getrusage`, whose peak starts with that of the parent."""
    if sys.platform == "linux":
        return _status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}.")
