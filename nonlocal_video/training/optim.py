"""The optimizer, the learning rate schedule and the moving average of the weights.

The learning rate is a function of the step alone, so a saved state needs no scheduler.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

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


class AveragedWeights:
    """The moving average of a module's parameters: a <- d a + (1 - d) w, with d = min(decay, (1 + n) / (10 + n)).

    n is the number of steps done. With a constant d, the first averages would be little more than the initial weights.
    PyTorch's `AveragedModel` hands n to its rule as a tensor on the device; to read it is to wait for the device.

    Attributes:
        module: The averaged module. Its buffers are copies of the latest: statistics of batch norms are means already,
            and averaged once more they would stay those of a new network for a thousand steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module)
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self, latest: nn.Module) -> None:
        """Add the parameters after a step; the first ones are the first average."""
        averages: list[Tensor] = list(self.module.parameters())
        parameters: list[Tensor] = list(latest.parameters())
        if self._steps:
            weight = 1 - min(self._decay, (1 + self._steps) / (10 + self._steps))
            torch._foreach_lerp_(averages, parameters, weight)
        else:
            torch._foreach_copy_(averages, parameters)
        by_dtype: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}  # only tensors of one type are copied together
        for kept, buffer in zip(self.module.buffers(), latest.buffers(), strict=True):
            by_dtype.setdefault(kept.dtype, []).append((kept, buffer))
        for pairs in by_dtype.values():
            torch._foreach_copy_([kept for kept, _ in pairs], [buffer for _, buffer in pairs])
        self._steps += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state, with the keys of an `AveragedModel`."""
        averages = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        return {"n_averaged": torch.tensor(self._steps), **averages}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state of `state_dict`, or of an `AveragedModel`."""
        self._steps = int(state["n_averaged"])
        self.module.load_state_dict(
            {name.removeprefix("module."): tensor for name, tensor in state.items() if name != "n_averaged"}
        )
