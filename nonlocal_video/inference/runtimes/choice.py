"""The choice between PyTorch and OpenVINO where neither was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.runtimes.openvino import has_bfloat16, is_installed

Runtime = Literal["torch", "openvino"]
"""Runtimes of the network: PyTorch on any device, or OpenVINO on the CPU."""
RuntimeOption = Literal["auto", "torch", "openvino"]
"""Choices of the runtime option; `auto` is OpenVINO where it saves time, else PyTorch."""

WORTH_SECONDS = 6.0
"""Work that takes PyTorch longer than this is worth compiling the network for, which is done once a machine: later
runs take the result from the cache. Compiling the default model takes about as long."""


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime and why it was chosen."""

    runtime: Runtime
    reason: str
    """A clause, for messages."""


def choose_runtime(
    option: RuntimeOption,
    *,
    device: torch.device,
    precision: Precision,
    problem: str | None = None,
    is_compiled: Callable[[], bool] = lambda: False,
    seconds_by_torch: float = 0.0,
) -> RuntimeChoice:
    """Choose what runs a network; a runtime that was asked for is not questioned.

    Args:
        option: What was asked for.
        device: Device of the network.
        precision: Precision of the network.
        problem: Why OpenVINO was given up for this network, as a sentence; None if it was not.
        is_compiled: Whether the network, compiled for these views, is in memory or in the cache. Asked last, as it may
            read a file.
        seconds_by_torch: Time that the known work takes PyTorch: what is done and what is to come.

    Example:
        >>> choose_runtime("auto", device=torch.device("cuda"), precision="float32").runtime
        'torch'
    """
    if option != "auto":
        return RuntimeChoice(option, "it was asked for")
    if device.type != "cpu":
        return RuntimeChoice("torch", f"the device is {device}, and OpenVINO runs on the CPU")
    if not is_installed():
        return RuntimeChoice("torch", "openvino is not installed (pip install openvino)")
    if precision == "bf16" and not has_bfloat16():
        return RuntimeChoice("torch", "OpenVINO has no bfloat16 on this CPU, and the precision is bf16")
    if problem is not None:
        return RuntimeChoice("torch", f"OpenVINO was given up: {problem.rstrip('.')}")
    if is_compiled():
        return RuntimeChoice("openvino", "the compiled network is in the cache")
    if seconds_by_torch >= WORTH_SECONDS:
        return RuntimeChoice("openvino", "the work is worth compiling the network")
    return RuntimeChoice("torch", "compiling the network would take longer than this work")
