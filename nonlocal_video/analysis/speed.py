"""Seconds and peak memory of a forward pass, measured so that the figures can be compared."""

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
    """A network's forward passes at one input shape on one device."""

    network: str
    input_shape: tuple[int, ...]
    dtype: str
    device: str
    hardware: str
    """Name of the device, or of the processor's architecture."""
    num_threads: int
    """CPU threads inside an operator."""
    seconds: tuple[float, ...]
    """Every timed run, in the order in which they ran."""
    warmup_runs: int
    peak_bytes: int | None
    """Most memory taken beyond what was there before the pass; None if it was not measured."""
    peak_method: str
    """How: resident memory of a fresh process, or the device's allocator."""

    def __post_init__(self) -> None:
        if not self.seconds or min(self.seconds) <= 0:
            raise ValueError(f"seconds = {self.seconds} should have at least one run, each above 0.")

    @property
    def median_seconds(self) -> float:
        """Half of the runs took longer."""
        return statistics.median(self.seconds)

    @property
    def quartile_seconds(self) -> tuple[float, float]:
        """The middle half of the runs lies between these."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third

    @property
    def clips_per_second(self) -> float:
        """Batch size over the median."""
        return self.input_shape[0] / self.median_seconds

    def to_row(self) -> dict[str, Any]:
        """Column -> plain value."""
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
    """Times networks in eval mode, one run of each in turn, so that a disturbance hits all of them alike.

    Args:
        networks: Name -> module of one tensor. They are put into eval mode and onto the device while they are
            measured, and back afterwards.
        input_shape: Batch first.
        device: Any device of this machine; it is synchronised before the clock is read.
        num_runs: Timed runs of each network.
        warmup_runs: Runs before that, which compile, allocate and choose algorithms.
        memory: Also measure the peak memory. On the CPU that starts a process for each network.
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
    """Bytes that one forward pass takes beyond the weights and the input, and how that was measured.

    On the CPU a fresh process runs the pass and reads its own peak of resident memory: that has the operators' scratch
    space in it, which no allocator of PyTorch's sees, and no memory that an earlier run left behind.
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
    """Wait for what the device still has to do; a CPU has nothing left when a call returns."""
    if device.type != "cpu":
        _backend(device).synchronize(*([] if device.type == "mps" else [device]))


def _backend(device: torch.device) -> Any:
    """torch.cuda, torch.xpu, torch.mps, ..."""
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
    """Spawned, not forked: a fork would share its parent's pages."""
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
    """Runs in the child."""
    torch.set_num_threads(num_threads)
    with torch.inference_mode():
        # Weights came through shared memory: their pages count from their first use, which has to be before.
        for tensor in [*network.parameters(), *network.buffers()]:
            tensor.data = tensor.data.clone()
        clip = torch.randn(input_shape)
        nn.Conv3d(3, 4, 3)(torch.randn(1, 3, 4, 8, 8))  # loads the convolution library's code
        gc.collect()
        before = _reset_resident_peak()
        network(clip)
        sender.send(max(0, _resident_peak() - before))


def _reset_resident_peak() -> int:
    """Bytes resident now, and from now on the peak starts here (Linux); elsewhere the peak so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _resident_peak()
    return _status_bytes("VmRSS")


def _resident_peak() -> int:
    """Not `getrusage` on Linux: its peak starts with that of the process that started this one."""
    if sys.platform == "linux":
        return _status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}.")
