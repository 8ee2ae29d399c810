"""The device that a run learns on, and the processes that torchrun has started for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from torch import nn

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.runtimes.device import choose_device
from nonlocal_video.training.config import TrainConfig

_LONGEST_CHECK = timedelta(days=7)


def check_device(device: str, config: TrainConfig) -> torch.device:
    """The device that is meant.

    Raises:
        UsageError: It is not here, or cannot learn in this precision.
    """
    chosen = choose_device(device)
    if chosen.type == "cpu" and config.precision != "32-true" and config.stage != "head":
        raise UsageError(
            f"precision = {config.precision!r} with stage = {config.stage!r} is for GPUs: on CPUs the gradients of 3D "
            f"convolutions in bfloat16 are not reproducible and sometimes not finite (PyTorch 2.14). Take 32-true."
        )
    return chosen


def make_fabric(device: str, config: TrainConfig) -> Fabric:
    """One process on one device, or those that torchrun has started, each on its own.

    Raises:
        UsageError: As by `check_device`.
    """
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
    """Give every process the first one's buffers, such as batch norms' statistics, in place and without pickling."""
    for buffer in module.buffers():
        torch.distributed.broadcast(buffer, src=0)


@contextmanager
def waiting_for_all(fabric: Fabric) -> Iterator[None]:
    """Let every process wait at the end of the block for all others, however long one checks clips in it.

    Elsewhere a process that does not answer for half an hour (`DDPStrategy`'s timeout) is an error, and stays one.
    """
    group: Any = None
    if fabric.world_size > 1:
        group = torch.distributed.new_group(backend="gloo", timeout=_LONGEST_CHECK)
    yield
    if group is not None:
        torch.distributed.barrier(group)
        torch.distributed.destroy_process_group(group)
