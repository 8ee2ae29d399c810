"""The progressive training schedule: when the blocks of each stage are switched on, and with what gate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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
    stages: tuple[int, ...] = (4, 3, 2, 1)
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
