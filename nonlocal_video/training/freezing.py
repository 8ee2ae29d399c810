"""Which part of a network learns, how its batch norms behave, and how much its non-local blocks count."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from nonlocal_video.blocks.schedule import ProgressiveSchedule
from nonlocal_video.errors import UsageError
from nonlocal_video.models.inception3d import InceptionI3D, InceptionModule
from nonlocal_video.models.resnet3d import Basic3DBlock, Bottleneck, Video3DResNet
from nonlocal_video.training.config import Stage

_INCEPTION_STAGES = {"1": 1, "2": 1, "3": 2, "4": 3, "5": 4}
"""First digit of an endpoint's number -> the stage of a residual network at the same resolution."""


def last_frozen_layer(network: Video3DResNet | InceptionI3D, stage: Stage) -> str | None:
    """The layer up to which nothing learns; None if everything does."""
    return {"head": network.feature_layer, "top": network.last_stage_input, "all": None}[stage]


def freeze(network: Video3DResNet | InceptionI3D, frozen: str | None) -> None:
    """Let only what comes after `frozen` learn."""
    learning = None if frozen is None else {*network.layers_after(frozen), network.head_layer}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(learning is None or name.split(".")[0] in learning)


def set_training(
    network: Video3DResNet | InceptionI3D, frozen: str | None, batch_norm: Literal["frozen", "batch"]
) -> None:
    """Training mode for what learns; with frozen batch norms these keep their statistics (gain and bias may learn)."""
    network.train()
    learning = None if frozen is None else {*network.layers_after(frozen), "dropout", network.head_layer}
    for name, child in network.named_children():
        if learning is not None and name not in learning:
            child.eval()
    if batch_norm == "frozen":
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def share_statistics(module: nn.Module, *, processes: int, device: torch.device) -> None:
    """Let batch norms normalise with the clips of all processes, on GPUs; for CPUs PyTorch has no such layer.

    Names and tensors of `module` stay as they are, so what is saved fits the network without this.
    """
    if processes > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)


class Gates:
    """The gates of a network's non-local blocks, moved by a schedule; without one they stay open."""

    def __init__(self, network: Video3DResNet | InceptionI3D, schedule: ProgressiveSchedule | None) -> None:
        """Find the blocks.

        Raises:
            UsageError: There is a schedule and no block, or it leaves out a stage that has one.
        """
        self._blocks = network.nonlocal_layers()
        self._schedule = schedule
        self._stages = {name: _stage_of(name) for name in self._blocks}
        if schedule is not None:
            if not self._blocks:
                raise UsageError("The progressive schedule is for non-local blocks, and the network has none.")
            left_out = sorted({stage for stage in self._stages.values() if stage not in schedule.stages})
            if left_out:
                raise UsageError(
                    f"The schedule's stages {schedule.stages} leave out {left_out}, where the network has blocks."
                )

    def move(self, epoch: float) -> None:
        """Set every gate to what it is at this moment."""
        if self._schedule is not None:
            gates = self._schedule.gates(epoch)
            for name, block in self._blocks.items():
                block.gate = gates[self._stages[name]]

    def open_from(self) -> float:
        """The epoch from which all are open."""
        if self._schedule is None:
            return 0.0
        last = max(self._schedule.stages.index(stage) for stage in self._stages.values())
        return self._schedule.warmup_epochs + self._schedule.ramp_epochs * (last + 1)

    def values(self) -> dict[str, float]:
        """Block -> gate."""
        return {name: block.gate for name, block in self._blocks.items()}


def with_absorbed_gates(network: Video3DResNet | InceptionI3D) -> Video3DResNet | InceptionI3D:
    """The network as it is now, for saving: a copy whose blocks' weights hold the gates."""
    absorbed = copy.deepcopy(network)
    for block in absorbed.nonlocal_layers().values():
        block.absorb_gate()
    return absorbed


def checkpoint_activations(network: Video3DResNet | InceptionI3D) -> None:
    """Let residual blocks, or Inception modules, compute their activations again in the backward pass."""
    for module in network.modules():
        is_block = isinstance(module, InceptionModule | Basic3DBlock | Bottleneck)
        if is_block:
            module.forward = functools.partial(_checkpointed, module, type(module).forward)


def _checkpointed(module: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> Tensor:
    result: Tensor = checkpoint(
        functools.partial(forward, module),
        x,
        use_reentrant=False,
        context_fn=functools.partial(_contexts, module),
    )
    return result


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _keeping_statistics(module)


@contextmanager
def _keeping_statistics(module: nn.Module) -> Iterator[None]:
    """The second computation must not move batch norms' running statistics once more."""
    norms = [child for child in module.modules() if isinstance(child, _BatchNorm)]
    before = [(norm.momentum, copy.deepcopy(norm.num_batches_tracked)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)


def _stage_of(block: str) -> int:
    """1 to 4, of a block's dotted name: `layer3.nonlocal5`, `nonlocal_Mixed_4f`."""
    if block.startswith("layer"):
        return int(block.removeprefix("layer").split(".")[0])
    number = next(part for part in block.split("_")[1:] if part[0].isdigit())
    return _INCEPTION_STAGES[number[0]]
