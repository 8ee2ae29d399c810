"""When the non-local blocks of which stage join in during training, and how much they count."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ProgressiveSchedule:
    """A gate from 0 to 1 for each stage's blocks, z = x + gate * W y, as a function of the epoch.

    First the network trains without blocks; then the stages join one after another, the deepest first. A stage's gate
    grows linearly from 0 to 1 and stays there; the next stage starts when it has arrived.

    Example, `ProgressiveSchedule(warmup_epochs=2, ramp_epochs=4, stages=(4, 3))`: epochs 0 and 1 without blocks, stage
    4 from epoch 2, half open at 4, open from 6, where stage 3 starts; all open from epoch 10.
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
        """From here on every gate is 1."""
        return self.warmup_epochs + self.ramp_epochs * len(self.stages)

    def gates(self, epoch: float) -> dict[int, float]:
        """Stage -> gate at a moment; 2.5 is the middle of the third epoch."""
        if epoch < 0:
            raise ValueError(f"{epoch = } should be at least 0.")
        gates = {}
        for place, stage in enumerate(self.stages):
            since = epoch - self.warmup_epochs - place * self.ramp_epochs
            if since >= self.ramp_epochs:
                gates[stage] = 1.0
            else:
                gates[stage] = max(0.0, since) / self.ramp_epochs
        return gates

    def to_row(self) -> dict[str, Any]:
        """Column -> plain value."""
        return {**asdict(self), "stages": list(self.stages), "total_epochs": self.total_epochs}
