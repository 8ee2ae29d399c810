"""Choice of device and runtime for the network."""

from __future__ import annotations

import logging
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import get_args

import torch

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.runtimes.choice import Runtime, RuntimeOption
from nonlocal_video.inference.runtimes.openvino import check_installed

EVERY_GPU = "cuda:all"
"""Name for all GPUs of the machine, in runs over many clips."""

_ROOT = Path("/")
_log = logging.getLogger(__name__)


def choose_device(name: str, *, runtime: RuntimeOption = "auto") -> torch.device:
    """Return the device to run on.

    `auto` is the first CUDA device that the runtime and the installed PyTorch can use, or else the CPU. If there is an
    NVIDIA device but none can be used, one warning gives the reason. A device that is named must exist and work.

    Raises:
        UsageError: The device is not one of auto, cpu, cuda, cuda:N, is not on this machine or cannot be used by the
            installed PyTorch, or `check_runtime` refuses it.
    """
    check_runtime(runtime, name)
    if name == EVERY_GPU:
        raise UsageError(
            f"device = {name!r} is for runs over many clips, as in classify and evaluate. Here, use "
            f"auto, cpu, cuda or cuda:N."
        )
    if name == "auto":
        return torch.device("cpu") if runtime == "openvino" else _best_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index is not None):
        raise UsageError(f"device = {name!r} should be auto, cpu, cuda or cuda:N.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"device = {name!r}, but {why_no_cuda()}. Use --device auto or cpu.")
        index = device.index or 0
        if index >= torch.cuda.device_count():
            raise UsageError(f"device = {name!r}, but this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}.")
        if problem := why_unusable(index):
            raise UsageError(
                f"device = {name!r}, but {problem}. Use --device auto or cpu, or another build of PyTorch."
            )
        return torch.device("cuda", index)
    return device


def choose_devices(name: str, *, runtime: RuntimeOption = "auto") -> list[str]:
    """Return the devices of a run over many clips: all GPUs for `cuda:all`, otherwise that of `choose_device`.

    Raises:
        UsageError: As for `choose_device`; or one of the GPUs cannot be used.
    """
    if name != EVERY_GPU:
        return [str(choose_device(name, runtime=runtime))]
    choose_device("cuda", runtime=runtime)
    return [str(choose_device(f"cuda:{index}")) for index in range(torch.cuda.device_count())]


def check_runtime(runtime: RuntimeOption, device: str) -> None:
    """Check that a runtime is installed and supports a device; the device itself is not checked.

    Raises:
        UsageError: The runtime is unknown, not installed, or does not support the device.
    """
    if runtime not in get_args(RuntimeOption):
        raise UsageError(f"runtime = {runtime!r} should be one of {', '.join(get_args(RuntimeOption))}.")
    if runtime == "openvino":
        check_installed()
        if device.partition(":")[0] == "cuda":
            raise UsageError(
                f"device = {device!r}, but runtime = 'openvino' runs on the CPU. Use --device auto or cpu, or "
                f"--runtime torch."
            )


def in_words(device: torch.device | str, runtime: Runtime, precision: Precision = "float32") -> str:
    """Return a description such as `cuda:0`, `cpu`, `cpu (openvino)` or `cuda:0 (bf16)`."""
    unusual = [name for name, usual in ((runtime, "torch"), (precision, "float32")) if name != usual]
    return f"{device} ({', '.join(unusual)})" if unusual else str(device)


def why_no_cuda() -> str:
    """Return why PyTorch finds no CUDA device and what to do, as a clause."""
    if torch.version.cuda is None:
        return (
            f"the installed torch {torch.__version__} was built without CUDA; install a CUDA build "
            f"(https://pytorch.org/get-started)"
        )
    build = f"torch {torch.__version__} (CUDA {torch.version.cuda})"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition(". ")[0].rstrip(".")
        if "too old" in reason:
            return f"the NVIDIA driver is too old for {build} ({reason}); update the driver or install an older build"
        if devices := _device_files():
            unreadable = [file for file in devices if not os.access(file, os.R_OK | os.W_OK)]
            if unreadable:
                return (
                    f"{build} may not open {unreadable[0]}, as this user is not in its group; in a container, add "
                    f"--group-add with the number of that group"
                )
        return f"{build} finds no usable NVIDIA GPU and driver ({reason})"
    return f"{build} finds no usable NVIDIA GPU and driver"


def why_unusable(index: int) -> str | None:
    """Return why the installed PyTorch has no kernels for a CUDA device, as a clause; None if it has.

    This compares compute capabilities before any kernel runs, which would fail in the middle of a clip.
    """
    major, minor = torch.cuda.get_device_capability(index)
    built_for = torch.cuda.get_arch_list()
    for architecture in built_for:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", architecture)
        if found is None:
            continue
        kind, built_major, built_minor = found[1], int(found[2]), int(found[3])
        # Machine code runs on the same major version from its minor one on; intermediate code on any later version.
        if kind == "sm" and built_major == major and built_minor <= minor:
            return None
        if kind == "compute" and (built_major, built_minor) <= (major, minor):
            return None
    if not built_for:
        return None  # unknown; the first kernel will tell
    return (
        f"{torch.cuda.get_device_name(index)} has compute capability {major}.{minor}, and torch {torch.__version__} "
        f"was built for {', '.join(built_for)}"
    )


def nvidia_device_is_visible() -> bool:
    """Return whether there is an NVIDIA device that is not hidden from this process, as told by files alone."""
    # NVIDIA_VISIBLE_DEVICES is no sign: it is `void` in containers that got their devices by CDI, too.
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1", "none", "void", "NoDevFiles"):
        return False
    return bool(_device_files()) or _windows_has_nvidia_driver()


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        problems = []
        for index in range(torch.cuda.device_count()):
            problem = why_unusable(index)
            if problem is None:
                return torch.device("cuda", index)
            problems.append(problem)
        _warn("; ".join(problems))
    elif nvidia_device_is_visible():
        _warn(why_no_cuda())
    return torch.device("cpu")


@cache
def _warn(reason: str) -> None:
    """Warn once for each reason in a process."""
    _log.warning(
        "The CPU is used although there is an NVIDIA device: %s. Use --device cpu to hide this warning.", reason
    )


def _device_files() -> list[Path]:
    """Return the device files of NVIDIA's GPUs; under WSL 2 the one that stands for the GPUs of all makers."""
    devices = [path for path in sorted((_ROOT / "dev").glob("nvidia*")) if re.fullmatch(r"nvidia\d+", path.name)]
    shared = _ROOT / "dev" / "dxg"
    if not devices and shared.exists() and _wsl_has_nvidia_driver():
        return [shared]
    return devices


def _wsl_has_nvidia_driver() -> bool:
    """Return whether Windows has lent this Linux NVIDIA's driver for CUDA.

    A distribution has it in `lib`; a container that was given GPUs has the driver's own folder, and one that was not
    has no `/dev/dxg`.
    """
    lent = _ROOT / "usr" / "lib" / "wsl"
    if (lent / "lib" / "libcuda.so.1").exists():
        return True
    return any((folder / "libcuda.so.1.1").exists() for folder in (lent / "drivers").glob("nv*.inf_*"))


def _windows_has_nvidia_driver() -> bool:
    if sys.platform != "win32":
        return False
    return Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll").is_file()
