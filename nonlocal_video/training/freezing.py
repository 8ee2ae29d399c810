"""The trainable part of a network, the mode of its batch norms, and the gates of its non-local blocks."""

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
"""Stage of a residual network at the same resolution, by the first digit of an Inception endpoint."""


def last_frozen_layer(network: Video3DResNet | InceptionI3D, stage: Stage) -> str | None:
    """Return the name of the last frozen layer; None if the whole network is trainable."""
    return {"head": network.feature_layer, "top": network.last_stage_input, "all": None}[stage]


def freeze(network: Video3DResNet | InceptionI3D, frozen: str | None) -> None:
    """Freeze all parameters up to and including layer `frozen`; None makes all trainable."""
    trainable = None if frozen is None else {*network.layers_after(frozen), network.head_layer}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trainable is None or name.split(".")[0] in trainable)


def set_training(
    network: Video3DResNet | InceptionI3D, frozen: str | None, batch_norm: Literal["frozen", "batch"]
) -> None:
    """Set training mode after layer `frozen` and evaluation mode up to it.

    With frozen batch norms, all of these use their stored statistics; gain and bias may still be trained.
    """
    network.train()
    trainable = None if frozen is None else {*network.layers_after(frozen), "dropout", network.head_layer}
    for name, child in network.named_children():
        if trainable is not None and name not in trainable:
            child.eval()
    if batch_norm == "frozen":
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def share_statistics(module: nn.Module, *, processes: int, device: torch.device) -> None:
    """Convert batch norms to synchronized ones over all processes, on GPUs; PyTorch has none for CPUs.

    Names and tensors of `module` do not change, so saved weights fit the unconverted network.
    """
    if processes > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)


class Gates:
    """Gates of a network's non-local blocks, opened by a schedule; without a schedule they stay open."""

    def __init__(self, network: Video3DResNet | InceptionI3D, schedule: ProgressiveSchedule | None) -> None:
        """Collect the non-local blocks.

        Raises:
            UsageError: There is a schedule but no block, or the schedule omits a stage that has a block.
        """
        self._blocks = network.nonlocal_layers()
        self._schedule = schedule
        self._stages = {name: _stage_of(name) for name in self._blocks}
        if schedule is not None:
            if not self._blocks:
                raise UsageError("A progressive schedule opens non-local blocks, and the network has none.")
            omitted = sorted({stage for stage in self._stages.values() if stage not in schedule.stages})
            if omitted:
                raise UsageError(
                    f"The schedule has the stages {schedule.stages} and omits {omitted}, where the network has blocks."
                )

    def set_epoch(self, epoch: float) -> None:
        """Set every gate to its value at this point in time, in epochs."""
        if self._schedule is not None:
            gates = self._schedule.gates(epoch)
            for name, block in self._blocks.items():
                block.gate = gates[self._stages[name]]

    def fully_open_epoch(self) -> float:
        """Return the epoch from which all gates are fully open."""
        if self._schedule is None:
            return 0.0
        last = max(self._schedule.stages.index(stage) for stage in self._stages.values())
        return self._schedule.warmup_epochs + self._schedule.ramp_epochs * (last + 1)

    def values(self) -> dict[str, float]:
        """Return the gate of each block, by block name."""
        return {name: block.gate for name, block in self._blocks.items()}


def with_absorbed_gates(network: Video3DResNet | InceptionI3D) -> Video3DResNet | InceptionI3D:
    """Return a copy of the network for saving, with each gate multiplied into its block's weights."""
    absorbed = copy.deepcopy(network)
    for block in absorbed.nonlocal_layers().values():
        block.absorb_gate()
    return absorbed


def checkpoint_activations(network: Video3DResNet | InceptionI3D) -> None:
    """Make residual blocks or Inception modules recompute their activations in the backward pass."""
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
    return nullcontext(), _frozen_statistics(module)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the recomputation from updating the running statistics of batch norms a second time."""
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
    """Return the stage, 1 to 4, from a block's dotted name: `layer3.nonlocal5`, `nonlocal_Mixed_4f`."""
    if block.startswith("layer"):
        return int(block.removeprefix("layer").split(".")[0])
    number = next(part for part in block.split("_")[1:] if part[0].isdigit())
    return _INCEPTION_STAGES[number[0]]
