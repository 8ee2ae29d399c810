"""The device of a training run, and the processes that torchrun started for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.runtimes.device import choose_device
from nonlocal_video.training.config import TrainConfig

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_MAX_WAIT = timedelta(days=7)


def check_installed() -> None:
    """Check that the packages of the extra `train` are installed.

    Raises:
        UsageError: One is not; the message has the command that installs it.
    """
    # Lightning's import for this warns where Triton is left out, as in the Docker image; nothing here needs it.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    try:
        import lightning.fabric  # noqa: F401
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UsageError(f"Training needs {error.name}: pip install 'nonlocal-video[train]'") from error


def check_device(device: str, config: TrainConfig) -> torch.device:
    """Return the device to train on.

    Raises:
        UsageError: The device is not available, or cannot train in this precision.
    """
    chosen = choose_device(device)
    if chosen.type == "cpu" and config.precision != "32-true" and config.stage != "head":
        raise UsageError(
            f"precision = {config.precision!r} with stage = {config.stage!r} is for GPUs: on CPUs the gradients of 3D "
            f"convolutions in bfloat16 are not reproducible and sometimes not finite (PyTorch 2.14). Use 32-true."
        )
    return chosen


def make_fabric(device: str, config: TrainConfig) -> Fabric:
    """Launch Fabric: one process on one device, or the processes of torchrun with one device each.

    Raises:
        UsageError: As for `check_device`.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    chosen = check_device(device, config)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    devices: Any = local
    if world == 1 and chosen.type == "cuda":
        devices = [chosen.index or 0]
    fabric = Fabric(
        accelerator=chosen.type,
        devices=devices,
        num_nodes=world // local,
        strategy=DDPStrategy() if world > 1 else "auto",
        precision=config.precision,
    )
    fabric.launch()
    return fabric


def copy_buffers_from_first(module: nn.Module) -> None:
    """Copy the buffers of process 0, such as batch-norm statistics, into those of every process, in place."""
    for buffer in module.buffers():
        torch.distributed.broadcast(buffer, src=0)


@contextmanager
def waiting_for_all(fabric: Fabric) -> Iterator[None]:
    """Make every process wait for the others at the end of the block, however long one of them checks clips there.

    Elsewhere a process that does not respond for half an hour (the timeout of `DDPStrategy`) remains an error.
    """
    group: Any = None
    if fabric.world_size > 1:
        group = torch.distributed.new_group(backend="gloo", timeout=_MAX_WAIT)
    yield
    if group is not None:
        torch.distributed.barrier(group)
        torch.distributed.destroy_process_group(group)
