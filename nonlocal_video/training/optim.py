"""The optimizer, the learning rate schedule and the moving average of the weights.

The learning rate is a function of the step alone, so a saved state needs no scheduler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nonlocal_video.training.config import TrainConfig


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer for the trainable parameters of `module`, without weight decay on biases and batch norms."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)


def state_bytes(module: nn.Module, config: TrainConfig) -> int:
    """Return the bytes that the optimizer's state and the averaged weights take during training."""
    sizes = {parameter: parameter.nbytes for parameter in module.parameters()}
    trainable = sum(size for parameter, size in sizes.items() if parameter.requires_grad)
    state_tensors = 2 if config.optimizer == "adamw" else 1  # two moments, or a momentum
    return state_tensors * trainable + (sum(sizes.values()) if config.ema_decay is not None else 0)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0.

    Linear warm-up, then half a cosine (Loshchilov & Hutter, ICLR 2017, eq. 5).
    """
    total = config.epochs * steps_per_epoch
    warmup = min(config.warmup_epochs * steps_per_epoch, total - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = value


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Return an update rule for `AveragedModel`: a <- d a + (1 - d) w, with d = min(decay, (1 + n) / (10 + n)).

    n is the number of steps done. With a constant d, the first averages would be little more than the initial weights.
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        done = int(steps)
        weight = 1 - min(decay, (1 + done) / (10 + done))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new, weight)

    return update
