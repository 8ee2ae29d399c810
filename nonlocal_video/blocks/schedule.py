"""The progressive training schedule: when the blocks of each stage are switched on, and with what gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nonlocal_video.blocks.nonlocal_block import NonLocalBlock

STAGES_DEEPEST_FIRST = (4, 3, 2, 1)


@dataclass(frozen=True)
class ProgressiveSchedule:
    """Gate from 0 to 1 for the blocks of each stage, z = x + gate * W y, as a function of the epoch.

    The network first trains without blocks. Then the stages are switched on one after another, in the order of
    `stages`. A stage's gate grows linearly from 0 to 1 and stays there; the next stage starts when it has reached 1.

    Raises:
        ValueError: If a number of epochs is negative, or a stage is unknown or repeated.

    Example:
        >>> schedule = ProgressiveSchedule(warmup_epochs=2, ramp_epochs=4, stages=(4, 3))
        >>> schedule.gates(1), schedule.gates(4), schedule.gates(8)
        ({4: 0.0, 3: 0.0}, {4: 0.5, 3: 0.0}, {4: 1.0, 3: 0.5})
        >>> schedule.total_epochs
        10
    """

    warmup_epochs: float = 5
    """Epochs without any block."""
    ramp_epochs: float = 5
    """Epochs over which one stage's gate grows from 0 to 1; 0 opens it at once."""
    stages: tuple[int, ...] = STAGES_DEEPEST_FIRST
    """Stages whose blocks join, in this order."""

    def __post_init__(self) -> None:
        for name in ("warmup_epochs", "ramp_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} should be at least 0.")
        if not self.stages or len(set(self.stages)) != len(self.stages) or not set(self.stages) <= {1, 2, 3, 4}:
            raise ValueError(f"stages = {self.stages} should be some of 1, 2, 3, 4, each at most once.")

    @property
    def total_epochs(self) -> float:
        """Epoch from which every gate is 1."""
        return self.warmup_epochs + self.ramp_epochs * len(self.stages)

    def gates(self, epoch: float) -> dict[int, float]:
        """Return each stage's gate at a point in training: 2.5 is the middle of the third epoch."""
        if epoch < 0:
            raise ValueError(f"{epoch = } should be at least 0.")
        gates = {}
        for index, stage in enumerate(self.stages):
            since = epoch - self.warmup_epochs - index * self.ramp_epochs
            if since >= self.ramp_epochs:
                gates[stage] = 1.0
            else:
                gates[stage] = max(0.0, since) / self.ramp_epochs
        return gates

    def to_row(self) -> dict[str, Any]:
        """Return the schedule as column -> plain value."""
        return {**asdict(self), "stages": list(self.stages), "total_epochs": self.total_epochs}


class ProgressiveTraining:
    """A `ProgressiveSchedule` that counts epochs, for a training loop of one's own.

    The stages join one after another, 4, 3, 2 and 1, in equal parts of the epochs after the warm-up; from
    `total_epochs` on all gates are 1.

    Args:
        total_epochs: Epochs until every gate is open.
        warmup_epochs: Epochs without blocks before that.

    Example:
        >>> training = ProgressiveTraining(total_epochs=50, warmup_epochs=10)
        >>> for epoch in range(15):  # a loop would call training.set_gates({4: block}), and train one epoch
        ...     training.step()
        >>> training.schedule.gates(training.current_epoch)
        {4: 0.5, 3: 0.0, 2: 0.0, 1: 0.0}
    """

    def __init__(self, total_epochs: float, warmup_epochs: float = 10) -> None:
        if not 0 <= warmup_epochs <= total_epochs:
            raise ValueError(f"{warmup_epochs = } should be from 0 to {total_epochs = }.")
        self.total_epochs, self.warmup_epochs = total_epochs, warmup_epochs
        self.current_epoch = 0
        ramp_epochs = (total_epochs - warmup_epochs) / len(STAGES_DEEPEST_FIRST)
        self.schedule = ProgressiveSchedule(warmup_epochs, ramp_epochs, STAGES_DEEPEST_FIRST)

    def step(self) -> None:
        """Go to the next epoch."""
        self.current_epoch += 1

    def gates(self) -> dict[int, float]:
        """Stage -> gate in this epoch."""
        return self.schedule.gates(self.current_epoch)

    def set_gates(self, blocks: Mapping[int, NonLocalBlock]) -> None:
        """Set the gates of a network's blocks, stage -> block, to this epoch's."""
        gates = self.gates()
        for stage, block in blocks.items():
            block.gate = gates[stage]

    def should_enable_nonlocal(self, stage: int) -> bool:
        """Whether the block of a stage, 1 to 4, has joined by this epoch."""
        if stage not in self.schedule.stages:
            raise ValueError(f"{stage = } should be one of {self.schedule.stages}.")
        place = self.schedule.stages.index(stage)
        return self.current_epoch >= self.warmup_epochs + place * self.schedule.ramp_epochs

    def get_nonlocal_weight(self) -> float:
        """The mean gate of the four stages: 0 in the warm-up, then growing linearly to 1."""
        gates = self.gates().values()
        return sum(gates) / len(gates)

    def state_dict(self) -> dict[str, float]:
        """Return the state that `load_state_dict` takes, for a run that is resumed."""
        return {"current_epoch": self.current_epoch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Resume from a stored epoch."""
        self.current_epoch = state["current_epoch"]
